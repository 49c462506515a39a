"""The main cases under pytest-benchmark: pytest benchmarks --benchmark-only

For a quick look and for comparing two working trees (--benchmark-autosave, --benchmark-compare); the tables of the
documentation come from `python -m benchmarks run`, which interleaves the candidates and has all of them.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks import cases
from benchmarks.candidates import candidates
from benchmarks.cases import Candidate, Case
from benchmarks.timing import Entrant

pytest.importorskip("pytest_benchmark", reason="pip install pytest-benchmark")

LEFT_OUT = {
    ("mmd-n4096-k64", "plain"),
    ("mmd-n4096-k64", "reference"),
    ("mmd-n4096-k64", "keops"),
    ("cw-n4096-k64", "keops"),
}
"""Case and candidate that take two to five seconds a call: up to half a minute each, with the seven calls or more that
pytest-benchmark makes, and KeOps's compiler. All the others end within four minutes."""

PAIRS = [
    (case, candidate)
    for case in cases.MAIN
    for candidate in candidates(case)
    if (case.name, candidate.name) not in LEFT_OUT
]


@pytest.mark.parametrize(
    ("case", "candidate"), [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].name}") for pair in PAIRS]
)
def test_distance(benchmark, case: Case, candidate: Candidate) -> None:
    if candidate.missing:
        pytest.skip(candidate.missing)
    torch.compiler.reset()
    call, _ = candidate.calls(case, cases.inputs(case))
    benchmark.group = case.name
    with Entrant(candidate.name, call, candidate.backend, candidate.threads).setting():
        call()
        benchmark(call)
