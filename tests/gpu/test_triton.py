"""What is Triton's own: ops, both sorts, both ways to spread the work, launches, graphs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from adversaries import ADVERSARIES
from bounds import (
    CRAMER_WOLD,
    F32,
    FURTHER,
    SCALES,
    UNBIASED,
    Sample,
    check_pairs,
    check_sliced,
    draw,
    lattice,
    run,
    smooth,
)
from targets import Target, targets

import mow_kernels as mk
from mow_kernels.registry import TABLE

BOTH = [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])]


@pytest.fixture
def triton_target() -> Target:
    found = [target for target in targets() if target.backend == "triton"]
    if not found or isinstance(TABLE["mmd"]["triton"], str):
        pytest.skip("neither a GPU nor Triton's interpreter")
    return found[0]


@pytest.mark.parametrize("n, k, m, dim", [(70, 3, 131, 70), (140, 2, 5, 20), (5, 5, 130, 20)])
@pytest.mark.parametrize("op, options", [BOTH[0], pytest.param(*BOTH[1], marks=pytest.mark.long)])
def test_many_programs(triton_target: Target, op: str, options: dict, n: int, k: int, m: int, dim: int) -> None:
    """The second stage, at sizes that one program would do alone."""
    from mow_kernels.triton import pairs

    window, prior = draw(n, dim, 0).to(triton_target.device), draw(m, dim, 1).to(triton_target.device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "ONE_PROGRAM", 0)
        for sample in (prior, None)[: 1 + (dim == 20)]:  # enough for each D to be compiled with
            check_pairs("triton", op, options, window[n - k :], window[: n - k], sample)
        if dim == 20:
            given = (window[n - k :].float(), window[: n - k].float(), prior.float())
            entry = TABLE[op]["triton"].gradient
            assert torch.equal(entry(False, *given, **options)[0], entry(True, *given, **options)[0])


@pytest.fixture
def limbs(triton_target: Target, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Products on tensor cores at any size."""
    from mow_kernels.triton import pairs

    monkeypatch.setattr(pairs, "ONE_PROGRAM", 0)
    monkeypatch.setattr(pairs, "LIMBS", 0)
    return triton_target


@pytest.mark.parametrize("n, k, m", [(9, 3, 20), pytest.param(140, 2, 131, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "op, options", [BOTH[0], *(pytest.param(*each, marks=pytest.mark.long) for each in (BOTH[1], ("mmd", FURTHER[4])))]
)
def test_products_of_limbs(limbs: Target, op: str, options: dict, n: int, k: int, m: int) -> None:
    """Also of what is no number, which it may not hide."""
    window, prior = draw(n, 70, 0).to(limbs.device), draw(m, 70, 1).to(limbs.device)
    check_pairs("triton", op, options, window[n - k :], window[: n - k], prior)
    given = [x.float() for x in (window[n - k :], window[: n - k], prior)]
    given[2][0, 3] = torch.nan
    assert TABLE[op]["triton"].run(*given, **options).isnan()


@pytest.mark.long
@pytest.mark.parametrize("spoil", ADVERSARIES)
@pytest.mark.parametrize("op, options", BOTH)
def test_what_is_hard_on_limbs(
    limbs: Target, op: str, options: dict, spoil: Callable[[torch.Tensor, torch.Tensor], None]
) -> None:
    window, prior = draw(40, 70, 3), draw(30, 70, 4)
    spoil(window, prior)
    window, prior = window.to(limbs.device), prior.to(limbs.device)
    check_pairs("triton", op, options, window[31:], window[:31], prior)


@pytest.mark.long  # test_float64 has the same kernels
@pytest.mark.parametrize("n, k, m, p", [(300, 3, 7, 1.5), (33, 5, 33, 2), (12, 12, None, 2)])
def test_torch_sorts_what_no_block_can(triton_target: Target, n: int, k: int, m: int | None, p: float, randn) -> None:
    from mow_kernels.triton import sliced_wasserstein

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_wasserstein, "SORTED", 0)
        sample = smooth(randn, n, k, m, 20, F32).to(triton_target.device)
        sample = Sample(sample.current, sample.history, sample.prior, sample.directions[:, :2])
        check_sliced("triton", sample, p)
        if m is not None:
            tied = lattice(n, k, m, 20, F32).to(triton_target.device)
            tied = Sample(tied.current, tied.history, tied.prior, tied.directions[:, :2])
            check_sliced("triton", tied, p, exact_projections=True)


@pytest.mark.parametrize("needs_grad", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("with_prior", [True, pytest.param(False, marks=pytest.mark.long)])
def test_opcheck(triton_target: Target, with_prior: bool, needs_grad: bool) -> None:
    current, history, prior = (draw(n, 20, n).float().to(triton_target.device) for n in (5, 14, 19))
    given = (current, history, prior if with_prior else None)
    ops = torch.ops.mow_triton
    torch.library.opcheck(ops.mmd.default, (*given, "imq", list(SCALES), "unbiased", needs_grad))
    torch.library.opcheck(ops.cramer_wold.default, (*given, 0.3, "exact", needs_grad))
    torch.library.opcheck(ops.sliced_wasserstein.default, (*given, current[:2].T.contiguous(), 2.0, needs_grad))


@pytest.mark.parametrize("scales", [1, 7, 16])
def test_the_rational_function_is_the_sum(triton_target: Target, scales: int) -> None:
    from mow_kernels.triton import radial

    constants = [2.0**j for j in range(scales)]
    f, rate = radial.inverse_multiquadric(constants, torch.float64)
    for r in (0.0, 0.3, 7.0, 1e3):
        t = r * rate
        p, q, slope = (math.fsum(c * t**j for j, c in enumerate(numbers)) for numbers in (f.p, f.q, f.slope))
        assert p / q == pytest.approx(sum(c / (c + r) for c in constants), rel=1e-13)
        assert rate * slope / q**2 == pytest.approx(sum(c / (c + r) ** 2 for c in constants), rel=1e-13)


def test_the_table_is_copied_once(triton_target: Target) -> None:
    from mow_kernels.triton.sliced_wasserstein import _bins

    first, again = (_bins(9, triton_target.device) for _ in range(2))
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(first, again, strict=True))


CALLS = {
    "mmd": lambda current, history, prior, directions: mk.mmd(current, history, prior),
    "cramer_wold": lambda current, history, prior, directions: mk.cramer_wold(current, history, prior),
    "sliced_wasserstein": lambda current, history, prior, directions: mk.sliced_wasserstein(
        current, history, prior, directions=directions
    ),
}


@pytest.mark.parametrize("n", [64, 3000])
@pytest.mark.parametrize("op", CALLS)
def test_graphs_and_no_synchronisation(gpu: Target, op: str, n: int) -> None:
    current, history, prior = (draw(rows, 20, rows).float().to(gpu.device) for rows in (4, n - 4, n))
    directions = torch.nn.functional.normalize(draw(20, 50, 3).float(), dim=0).to(gpu.device)
    current.requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        value = CALLS[op](current, history, prior, directions)
        return value, torch.autograd.grad(value, current)[0]

    with mk.use_backend(gpu.backend):
        expected = step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        with torch.no_grad():
            history.mul_(2)
        graph.replay()
        again = [x.clone() for x in captured]
        for seen, right in zip(again, step(), strict=True):
            assert torch.equal(seen, right)
        assert not torch.equal(again[0], expected[0])


@pytest.mark.parametrize("op", CALLS)
def test_launches(gpu: Target, op: str) -> None:
    """At n = 64, k = 1: value and gradient in at most two."""
    window = draw(64, 20, 0).float().to(gpu.device)
    directions = torch.nn.functional.normalize(draw(20, 50, 3).float(), dim=0).to(gpu.device)
    entry, options = TABLE[op][gpu.backend], {}
    if isinstance(entry, str):
        pytest.skip(entry)
    options = {
        "mmd": UNBIASED,
        "cramer_wold": {"gamma": 0.3, "phi": "exact"},
        "sliced_wasserstein": {"directions": directions, "p": 2},
    }[op]
    run(entry.run, window[63:], window[:63], None, options)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile, torch.no_grad():
        live = window[63:].requires_grad_()
        with torch.enable_grad():
            entry.run(live, window[:63], None, **options)
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert len(kernels) <= 2, [event.name for event in kernels]
