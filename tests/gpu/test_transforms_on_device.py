"""What torch.func makes of a fused op, on the device: the same as of the reference."""

from __future__ import annotations

import pytest
import torch
from bounds import CRAMER_WOLD, UNBIASED, draw
from targets import Target
from torch import Tensor

import mow_kernels as mk


@pytest.mark.parametrize(
    "op, options", [("mmd", UNBIASED), pytest.param("cramer_wold", CRAMER_WOLD[0], marks=pytest.mark.long)]
)
def test_transforms(target: Target, op: str, options: dict) -> None:
    z, history = draw(6, 20, 0).view(2, 3, 20).to(target.device), draw(5, 20, 1).to(target.device)

    def distance(z: Tensor) -> Tensor:
        return getattr(mk, op)(z, history, **options)

    seen, right = [], []
    for backend, results in ((target.backend, seen), ("reference", right)):
        with mk.use_backend(backend):
            results += [
                torch.func.vmap(torch.func.grad(distance))(z),
                torch.func.hessian(distance)(z[0]),
                torch.func.jvp(distance, (z[0],), (z[1],))[1],
                distance(z),
            ]
    for one, other in zip(seen, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
