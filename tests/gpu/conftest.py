"""The tests of this folder run on every backend for GPUs that is there, and without a GPU on Triton's interpreter.

`make gpu` runs them on a GPU; tests/kernels/test_triton_interpreted.py runs them in a process with TRITON_INTERPRET=1,
on the CPU and with sizes that the interpreter can bear: those marked long take it long, and a GPU no time. Elsewhere
they skip.
"""

from __future__ import annotations

import pytest
from targets import Target, targets

from mow_kernels.registry import TABLE


@pytest.fixture(params=targets(), ids=lambda target: target.backend)
def target(request: pytest.FixtureRequest) -> Target:
    op = request.node.callspec.params.get("op", "sliced_wasserstein" if "sliced" in request.path.stem else "mmd")
    entry = TABLE[op][request.param.backend]
    if isinstance(entry, str):
        pytest.skip(f"{request.param.backend}: {entry}")
    return request.param


@pytest.fixture
def gpu(target: Target) -> Target:
    """For what only a GPU has: graphs, streams, memory of its own."""
    if target.small:
        pytest.skip("needs a GPU")
    return target
