"""The tests of this folder run on every backend for GPUs that is there, and without a GPU on Triton's interpreter.

`make gpu` runs them on a GPU; tests/kernels/test_triton_interpreted.py runs them in a process with TRITON_INTERPRET=1,
on the CPU and with sizes that the interpreter can bear. Elsewhere they skip.

On the interpreter they end with how many kernels a GPU would have had to compile for them, which is most of their time
there. Those not marked long have a budget of it: their sizes are few, and chosen to share. `make gpu` runs these for
Triton, and all for CUDA C++, which is compiled once.
"""

from __future__ import annotations

from typing import Any

import pytest
from targets import Target, targets
from torch import Tensor

from mow_kernels.backends import triton
from mow_kernels.registry import TABLE

compiled: set[tuple] = set()


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


def pytest_configure() -> None:
    if triton.INTERPRETED and not triton.unavailable:
        from triton.runtime.interpreter import InterpretedFunction

        launch = InterpretedFunction.run

        def run(kernel: Any, *arguments: Any, **keywords: Any) -> Any:
            compiled.add(specialisation(kernel, arguments, keywords))
            return launch(kernel, *arguments, **keywords)

        InterpretedFunction.run = run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if compiled:
        terminalreporter.write_line(f"distinct compilations: {len(compiled)}")
        import os

        if os.environ.get("DUMP"):
            open("/tmp/dump", "w").write("\n".join(sorted(map(str, compiled))))


def specialisation(kernel: Any, arguments: tuple, keywords: dict[str, Any]) -> tuple:
    """What Triton compiles a kernel for: constants and options, types, and what it sees in pointers and integers."""
    given = {**dict(zip(kernel.arg_names, arguments, strict=False)), **keywords}
    del given["grid"], given["warmup"]
    for name, value in given.items():
        if name in kernel.arg_names and "constexpr" not in str(kernel.fn.__annotations__.get(name)):
            at_all = name not in (kernel.kwargs.get("do_not_specialize") or ())
            given[name] = _seen(value, at_all, name not in (kernel.kwargs.get("do_not_specialize_on_alignment") or ()))
    return (kernel.fn.__name__, *sorted(given.items()))


def _seen(value: Any, at_all: bool, alignment: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_seen(each, at_all, alignment) for each in value)
    if isinstance(value, Tensor):
        return str(value.dtype), at_all and alignment and value.data_ptr() % 16 == 0
    if isinstance(value, int):
        width = 32 if abs(value) < 2**31 else 64
        return (width, 1) if at_all and value == 1 else (width, at_all and alignment and value % 16 == 0)
    return type(value)
