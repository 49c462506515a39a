"""Tensor cores in NumPy: what an mma.sync of float16 factors with a float32 accumulator does, and distances made of it.

The products are exact. They and the accumulator are aligned to the largest of them, what then lies below the last place
is cut off, with no rounding, and so is the sum when it becomes a float32: Fasi, Higham, Mikaitis, Pranesh, "Numerical
behavior of NVIDIA tensor cores", PeerJ Computer Science 7 (2021), e330; Khattak, Mikaitis, "Accurate models of NVIDIA
tensor cores", arXiv:2512.07004, has the newer generations. They differ in how many products are added at once, and in
how many places beyond those of a float32 are kept. Where the literature leaves room, what loses more is taken here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.page import row
from mow_kernels import SCALES

Array = npt.NDArray[np.float64]  # holds every number here exactly


class Accumulator(NamedTuple):
    """What generations differ in."""

    terms: int
    """Products that are added at once."""
    places: int
    """Binary places of an aligned term beyond those of a float32 as large as the largest."""


GENERATIONS = {"sm_70": Accumulator(4, 0), "sm_80": Accumulator(8, 1), "sm_90": Accumulator(16, 2)}
COARSEST = GENERATIONS["sm_70"]

DEPTH = 32  # coordinates that are added up in the accumulators, and then to a float32: what is cut off pulls one way
LOW = 2.0**11  # that the second limb is multiplied by, so that it has the range of the first
HIGHEST = 14  # of the exponent of the largest coordinate of a row, scaled
CENTRES = 64  # rows whose mean is the centre


def mma(a: Array, b: Array, c: Array, accumulator: Accumulator = COARSEST) -> Array:
    """c + a b^T. a [M, K], b [N, K] of float16 numbers, c [M, N] of float32 ones."""
    for first in range(0, a.shape[1], accumulator.terms):
        some = slice(first, first + accumulator.terms)
        products = a[:, None, some] * b[None, :, some]
        c = _float32(_aligned_sum(np.concatenate([products, c[:, :, None]], 2), accumulator.places))
    return c


def _aligned_sum(terms: Array, places: int) -> Array:
    _, exponents = np.frexp(np.abs(terms).max(2, keepdims=True))
    last = np.ldexp(1.0, np.maximum(exponents, -125) - 24 - places)
    return (np.trunc(terms / last) * last).sum(2)


def _float32(x: Array) -> Array:
    """Towards zero."""
    _, exponents = np.frexp(x)
    last = np.ldexp(1.0, np.maximum(exponents, -125) - 24)
    cut = np.trunc(x / last) * last
    return np.where(np.abs(cut) >= 2.0**128, np.copysign(np.inf, cut), cut)


class Limbs(NamedTuple):
    """Rows x = (high + low / LOW) / scale."""

    high: Array
    low: Array
    scale: npt.NDArray[np.float32]
    norms: npt.NDArray[np.float32]
    """|x|^2."""

    @classmethod
    def of(cls, x: Tensor, centre: Tensor, dtype: torch.dtype = torch.float16) -> Limbs:
        """Of x - centre. x [N, D] and centre [D] in float32; dtype is the limbs'."""
        rows = (x - centre).numpy()
        _, exponents = np.frexp(np.abs(rows).max(1))
        scale = np.ldexp(np.float32(1), np.minimum(HIGHEST + 1 - exponents, 126)).astype(np.float32)[:, None]
        scaled = torch.from_numpy(rows * scale)
        high = scaled.to(dtype).float()
        low = ((scaled - high) * LOW).to(dtype)
        with np.errstate(over="ignore"):
            norms = np.square(rows.astype(np.float64)).sum(1).astype(np.float32)
        return cls(high.double().numpy(), low.double().numpy(), scale, norms)


def centre_of(window: Tensor) -> Tensor:
    """The mean of at most CENTRES rows, evenly apart."""
    count = min(len(window), CENTRES)
    return window[torch.arange(count) * len(window) // count].double().mean(0).float()


def products(x: Limbs, y: Limbs, accumulator: Accumulator = COARSEST) -> npt.NDArray[np.float32]:
    """x y^T [M, N] in float32."""
    total = np.zeros((len(x.high), len(y.high)), np.float32)
    for first in range(0, x.high.shape[1], DEPTH):
        some = slice(first, first + DEPTH)
        zeros = np.zeros(total.shape)
        high = mma(x.high[:, some], y.high[:, some], zeros, accumulator).astype(np.float32)
        low = mma(x.low[:, some], y.high[:, some], zeros, accumulator)
        low = mma(x.high[:, some], y.low[:, some], low, accumulator).astype(np.float32)
        total += high + low * np.float32(1 / LOW)
    return (total / x.scale) / y.scale.T


def squared_distances(
    x: Tensor, y: Tensor, centre: Tensor, accumulator: Accumulator = COARSEST
) -> tuple[Tensor, Tensor]:
    """|x_i - y_j|^2 [M, N] in float32, and which of them were evaluated by differences."""
    r, terms = expanded(Limbs.of(x, centre), Limbs.of(y, centre), accumulator)
    again = ~(r >= terms / 8)  # also where r is no number
    return torch.where(again, (x[:, None] - y).square().sum(2), r), again


def expanded(x: Limbs, y: Limbs, accumulator: Accumulator) -> tuple[Tensor, Tensor]:
    """|x_i|^2 + |y_j|^2 - 2 x_i y_j and |x_i|^2 + |y_j|^2, [M, N] in float32."""
    with np.errstate(all="ignore"):
        terms = x.norms[:, None] + y.norms
        return torch.from_numpy(terms - 2 * products(x, y, accumulator)), torch.from_numpy(terms)


DIMS = (16, 64, 256, 1024)


def errors() -> dict[str, Any]:
    """{"rows": [what the relative error of a squared distance is, and of the seven-scale inverse multiquadric kernel]}.

    Of 100 rows of N(0, I) and 100 that are moved and a tenth wider.
    """
    rows = []
    for dim in DIMS:
        generator = torch.Generator().manual_seed(dim)
        x, y = (torch.randn(100, dim, generator=generator) for _ in range(2))
        y = y * 1.1 + 0.2
        truth = (x.double()[:, None] - y.double()).square().sum(2)
        centre = centre_of(x)
        halves, brains = (
            [Limbs.of(rows, centre, dtype) for rows in (x, y)] for dtype in (torch.float16, torch.bfloat16)
        )
        runs = [(x[:, None, at : at + DEPTH] - y[:, at : at + DEPTH]).square().sum(2) for at in range(0, dim, DEPTH)]
        found = {"differences in float32": torch.stack(runs).sum(0)}
        for name, accumulator in GENERATIONS.items():
            found[f"two float16 limbs, accumulators of {name}"] = expanded(*halves, accumulator)[0]
        found["two bfloat16 limbs, accumulators of sm_90"] = expanded(*brains, GENERATIONS["sm_90"])[0]
        alone = [limbs._replace(low=0 * limbs.low) for limbs in halves]
        found["one float16 limb, accumulators of sm_90"] = expanded(*alone, GENERATIONS["sm_90"])[0]
        for method, r in found.items():
            error = r.double() / truth - 1
            kernel = (_imq(r.double(), dim) - _imq(truth, dim)).square().mean().sqrt()
            numbers = {"rms": error.square().mean().sqrt(), "largest": error.abs().max(), "kernel": kernel}
            rows.append({"method": method, "dim": dim, **{key: float(f"{x:.1e}") for key, x in numbers.items()}})
    return {"rows": rows}


def _imq(r: Tensor, dim: int) -> Tensor:
    return torch.stack([2 * dim * scale / (2 * dim * scale + r) for scale in SCALES]).sum(0)


def table(result: dict[str, Any]) -> str:
    """The Markdown table of `errors`."""
    cells: dict[str, list[str]] = {}
    for found in result["rows"]:
        cells.setdefault(found["method"], []).append(f"{found['rms']:.1e} ({found['largest']:.0e})")
        if found["dim"] == 64:
            cells[found["method"]].append(f"{found['kernel']:.1e}")
    heads = ["squared distances by"]
    for dim in DIMS:
        heads += [f"D = {dim}", *(["kernel, D = 64"] if dim == 64 else [])]
    return "\n".join(
        [
            "Relative errors of a squared distance, emulated: the root of their mean square and, in brackets, the",
            "largest; and errors of a value of the seven-scale kernel. Rows of N(0, I) against rows that are moved and",
            "wider.",
            "",
            row(heads),
            "|" + " --- |" * len(heads),
            *(row([method, *numbers]) for method, numbers in cells.items()),
        ]
    )
