"""Whether this checkout is slower than another: the same calls in both, by turns.

    python -m benchmarks against ../before

Each checkout has a process of its own, which runs this file as a script and imports the `mow_kernels` of its checkout.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple


class Case(NamedTuple):
    """A distance with its gradient: over n rows of width dim, k of them current, to N(0, I) or to a sample of n."""

    op: str
    n: int
    k: int
    dim: int
    sample: bool


SIZES = ((64, 1, 20), (64, 64, 20), (1024, 64, 64), (4096, 64, 64))
CASES = tuple(
    Case(op, *size, sample)
    for op in ("mmd", "cramer_wold", "sliced_wasserstein")
    for size in SIZES
    for sample in (False, True)
)


def measure(here: Path, other: Path, rounds: int = 15, seconds: float = 0.05) -> Iterator[tuple[Case, list[float]]]:
    """Of each case the ratios of this checkout's time to that of the other one, below 1 where this one is faster.

    Args:
        here, other: folders with a `mow_kernels` each, its native library built in place.
        rounds: ratios of a case, >= 1. In each both are timed, one after the other, the first of them by turns.
        seconds: that each call is repeated for in a round.

    Raises:
        ValueError: a folder has no `mow_kernels` that can be imported, or one cannot run a case; with what it said.
    """
    with contextlib.ExitStack() as stack:
        mine, its = (stack.enter_context(_process(checkout)) for checkout in (here, other))
        for case in CASES:
            ratios = []
            for turn in range(rounds):
                pair = [mine, its][:: -1 if turn % 2 else 1]
                took = {id(ask): ask(case, seconds) for ask in pair}
                ratios.append(took[id(mine)] / took[id(its)])
            yield case, ratios


def line(case: Case, ratios: list[float]) -> list[str]:
    """The cells of a case: what it is, the median, p20 and p80."""
    fifths = statistics.quantiles(ratios, n=5, method="inclusive") if len(ratios) > 1 else ratios * 4
    prior = "a sample" if case.sample else "N(0, I)"
    name = f"{case.op}, n = {case.n}, k = {case.k}, D = {case.dim}, to {prior}"
    return [name, *(f"{ratio:.2f}" for ratio in (statistics.median(ratios), fifths[0], fifths[3]))]


@contextlib.contextmanager
def _process(checkout: Path) -> Iterator[Callable[[Case, float], float]]:
    """Ask the process of a checkout for the seconds that a call takes."""
    if not (checkout / "mow_kernels" / "__init__.py").is_file():
        raise ValueError(f"{checkout} holds no mow_kernels; it must be a checkout, its native library built in place")
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", __file__]
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # they are pipes
        questions, answers = process.stdin, process.stdout

        def ask(case: Case, seconds: float) -> float:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and gives no answer
                questions.write(json.dumps([*case, seconds]) + "\n")
                questions.flush()
            answer = answers.readline()
            try:
                return float(answer)
            except ValueError:
                raise ValueError(f"{checkout} cannot run {case.op}: {answer.strip() or 'its process ended'}") from None

        try:
            yield ask
        finally:
            with contextlib.suppress(BrokenPipeError):
                questions.close()


def serve(questions: IO[str], answers: IO[str]) -> None:
    """A line of seconds for each line that asks for a case; or of what went wrong."""
    import torch  # here and not above: `measure` has no need of it

    torch.set_num_threads(1)
    calls: dict[Case, Callable[[], object]] = {}
    for question in questions:
        *given, seconds = json.loads(question)
        case = Case(*given)
        try:
            if case not in calls:
                calls[case] = _call(case)
                calls[case]()
            repeats, begun = 0, time.perf_counter()
            while repeats == 0 or time.perf_counter() - begun < seconds:
                calls[case]()
                repeats += 1
            answer = str((time.perf_counter() - begun) / repeats)
        except Exception as error:  # whatever the other checkout says: it is handed on
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(answer, file=answers, flush=True)


def _call(case: Case) -> Callable[[], object]:
    """The value and the gradient by autograd, of what this process imports."""
    import torch

    import mow_kernels as mk

    random = torch.Generator().manual_seed(0)
    current = torch.randn(case.k, case.dim, generator=random).requires_grad_()
    history = torch.randn(case.n - case.k, case.dim, generator=random)
    prior = torch.randn(case.n, case.dim, generator=random) if case.sample else "normal"
    options: dict[str, Any] = {}
    if case.op == "sliced_wasserstein":
        options["directions"] = torch.randn(case.dim, 50, generator=random)
    function = getattr(mk, case.op)
    return lambda: torch.autograd.grad(function(current, history, prior, **options), current)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
