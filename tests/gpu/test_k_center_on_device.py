"""k_center on a device takes the rows that the reference takes on the CPU."""

from __future__ import annotations

import pytest
import torch
from bounds import draw
from targets import Target

import mow_kernels as mk
from mow_kernels.registry import OPS, TABLE

pytestmark = pytest.mark.parametrize("op", ["k_center"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, k, dim", [(1, 1, 1), (257, 257, 3), (700, 60, 1030), (200_000, 20, 8)])
def test_the_rows_of_the_reference(gpu: Target, op: str, n: int, k: int, dim: int, dtype: torch.dtype) -> None:
    some = draw(n, dim, 1).to(dtype)
    spoilt = some.clone()
    spoilt[n // 3, 0] = torch.nan
    for x in (some, some.round(), spoilt, some.T.contiguous().T):
        for given in (None, torch.tensor([0, n - 1])) if k < n - 1 else (None,):
            options = {"k": k, "start": n // 2, "given": given}
            expected = OPS["k_center"].reference(x, **options)
            seen = TABLE[op][gpu.backend].run(x.to(gpu.device), **options)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("n", [5000, 30_000])
def test_a_graph_and_no_synchronisation(gpu: Target, op: str, n: int) -> None:
    """By a team of blocks, and by all that the device runs at once."""
    x = draw(n, 16, 2).float().to(gpu.device)
    with mk.use_backend(gpu.backend):
        expected = mk.k_center(x, 40, start=3)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = mk.k_center(x, 40, start=3)
        graph.replay()
        assert all(map(torch.equal, captured, expected))
