"""How near a backend has to come to the reference in float64: what the tests of every backend have in common.

The bound: an error of at most twice the float32 reference's, plus 8 eps times the sum of the absolute terms. Those
are, for sliced-Wasserstein, the products inside the projections, carried to the result by the derivative of the cost,
and the costs themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import mow_kernels as mk
from mow_kernels.reference import laplace
from mow_kernels.reference.mmd import KERNELS
from mow_kernels.reference.sliced_wasserstein import normal_bins, quantile_coupling, unit
from mow_kernels.reference.sums import squared_distances
from mow_kernels.registry import OPS, TABLE

F32, F64 = torch.float32, torch.float64

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
UNBIASED = {"kernel": "imq", "scales": SCALES, "estimator": "unbiased"}
MMD = [
    UNBIASED,
    {"kernel": "imq", "scales": (1e-3, 1.0, 1e4), "estimator": "biased"},
    {"kernel": "imq", "scales": tuple(2.0**j for j in range(-8, 8)), "estimator": "biased"},
    {"kernel": "gaussian", "scales": SCALES, "estimator": "biased"},
    {"kernel": "gaussian", "scales": (0.3,), "estimator": "unbiased"},
]
CRAMER_WOLD = [{"gamma": 0.2, "phi": "exact"}, {"gamma": 0.05, "phi": "asymptotic"}]
FURTHER = [  # a kernel's numbers as its implementations take them
    {"kernel": "energy", "scales": (), "estimator": "unbiased"},
    {"kernel": "laplacian", "scales": (1.0, 3.0), "estimator": "biased"},
    {"kernel": "rational_quadratic", "scales": (0.0, 0.2, 0.5, 1.0, 2.0, 5.0), "estimator": "biased"},
    {"kernel": "rational_quadratic", "scales": (0.1, 0.7, 3.25), "estimator": "unbiased"},
    {"kernel": "polynomial", "scales": (3.0, 1.0, 0.05), "estimator": "biased"},
    {"kernel": "polynomial", "scales": (2.0, 0.5, 0.3), "estimator": "unbiased"},
]
VARIANTS = [
    *(("mmd", options) for options in MMD),
    *(("cramer_wold", options) for options in CRAMER_WOLD),
    *(("mmd", options) for options in FURTHER),
]
AGAIN = (MMD[2], MMD[4], FURTHER[2], FURTHER[5])  # of a family that has another variant
SWEEP = [pytest.param(*each, marks=[pytest.mark.long] if each[1] in AGAIN else []) for each in VARIANTS]
STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.T.contiguous().T,
    "every second column": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], 2).flatten(1)[:, ::2],
    "rows apart": lambda x: torch.cat([x, torch.full_like(x, torch.nan)], 1)[:, : x.shape[1]],
    "one row for all": lambda x: x[:1].expand_as(x),
    "offset": lambda x: torch.cat([torch.full_like(x[:1], torch.nan), x])[1:],
}


def public(options: dict) -> dict:
    """Such options as the public function takes them."""
    kernel, numbers = options.get("kernel"), options.get("scales")
    if kernel == "rational_quadratic":
        return {**options, "scales": None, "linear": numbers[0], "alphas": numbers[1:]}
    if kernel == "polynomial":
        return {**options, "scales": None, "degree": int(numbers[0]), "coef0": numbers[1], "gamma": numbers[2]}
    return options


def priors(options: dict, sample: Tensor) -> tuple[Tensor | None, ...]:
    """The sample, and None for N(0, I) where the distance to that has a closed form."""
    return (sample,) if options.get("kernel") == "laplacian" else (sample, None)


def grows(options: dict) -> bool:
    """Whether the kernel grows with the rows: huge ones have no value then."""
    numbers = options.get("scales")
    return options.get("kernel") in ("energy", "polynomial") or (
        options.get("kernel") == "rational_quadratic" and numbers[0] > 0
    )


def draw(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(
    function: Callable, current: Tensor, history: Tensor, prior: Tensor | None, options: dict
) -> tuple[Tensor, Tensor]:
    """Value and gradient, in float64."""
    live = current.detach().requires_grad_()
    value = function(live, history, prior, **options)
    (gradient,) = torch.autograd.grad(value, live)
    assert value.dtype == gradient.dtype == current.dtype and value.shape == () and gradient.shape == current.shape
    return value.detach().double(), gradient.double()


def absolute_terms(
    op: str, current: Tensor, history: Tensor, prior: Tensor | None, options: dict
) -> tuple[Tensor, Tensor]:
    """The sums of the absolute values of what the value [] and the gradient [k, D] add up, in float64."""
    if options in FURTHER:
        return _absolute_terms_of_further(current, history, prior, options)
    window, dim = torch.cat([history, current]), current.shape[1]
    n, origin = len(window), torch.zeros_like(window[:1])

    if op == "mmd":
        constants = [2 * dim * scale for scale in options["scales"]]
        weight = 1.0

        def radial(r: Tensor) -> Tensor:
            return sum(torch.exp(-r / c) if options["kernel"] == "gaussian" else c / (c + r) for c in constants)

        def to_normal(r: Tensor) -> Tensor:
            if options["kernel"] == "imq":
                return laplace.imq_mean(r, dim, options["scales"])
            return sum((c / (c + 2)) ** (dim / 2) * torch.exp(-r / (c + 2)) for c in constants)

    else:
        gamma = options["gamma"]
        weight = 1 / (2 * (torch.pi * gamma) ** 0.5)

        def radial(r: Tensor) -> Tensor:
            return laplace.phi(r / (4 * gamma), dim)

        def to_normal(r: Tensor) -> Tensor:
            return laplace.phi(r / (2 + 4 * gamma), dim)

    value = 4 * radial(window.new_zeros(()))
    gradient = 4 * pull(radial, current, window) / max(1, n * (n - 1))
    if prior is None:
        gradient += 4 * pull(to_normal, current, origin) / n
    else:
        gradient += 4 * pull(radial, current, prior) / (n * len(prior))
    return weight * value, weight * gradient


def pull(f: Callable[[Tensor], Tensor], current: Tensor, others: Tensor) -> Tensor:
    """sum_j |f'(r_ij)| |current_i - other_j| for each coordinate."""
    parts = []
    for rows in current.split(50):
        difference = rows[:, None] - others
        r = difference.square().sum(2).requires_grad_()
        (slope,) = torch.autograd.grad(f(r).sum(), r)
        parts.append(torch.einsum("ij,ijd->id", slope.abs(), difference.abs()))
    return torch.cat(parts)


def _absolute_terms_of_further(
    current: Tensor, history: Tensor, prior: Tensor | None, options: dict
) -> tuple[Tensor, Tensor]:
    window, dim, numbers = torch.cat([history, current]), current.shape[1], options["scales"]
    kernel, n, m = KERNELS[options["kernel"]], len(window), 1 if prior is None else len(prior)
    samples = [window] if prior is None else [window, prior]
    if options["kernel"] == "polynomial":  # of absolute products, of which a product is known to eps
        degree, c, g = numbers

        def mean(x: Tensor, y: Tensor) -> Tensor:
            return ((g * x.abs() @ y.abs().T + abs(c)) ** degree).mean()

        def pulled(x: Tensor, y: Tensor) -> Tensor:
            return degree * g * (g * x.abs() @ y.abs().T + abs(c)) ** (degree - 1) @ y.abs() / 2

    else:

        def of(r: Tensor) -> Tensor:
            return kernel.of(r, dim, numbers)

        def mean(x: Tensor, y: Tensor) -> Tensor:
            return of(squared_distances(x, y)).abs().mean()

        def pulled(x: Tensor, y: Tensor) -> Tensor:
            return pull(of, x, y)

    value = 2 * sum(mean(x, x) for x in samples)
    gradient = 4 * pulled(current, window) / max(1, n * (n - 1))
    if prior is not None:
        return value + 2 * mean(window, prior), gradient + 4 * pulled(current, prior) / (n * m)
    live = current.detach().requires_grad_()
    to_normal = kernel.mean(live, numbers)
    (slope,) = torch.autograd.grad(to_normal.sum(), live)
    return value + 2 * to_normal.detach().abs().mean() + abs(kernel.vv(dim, numbers)), gradient + 2 * slope.abs() / n


def check_pairs(
    backend: str, op: str, options: dict, current: Tensor, history: Tensor, prior: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> None:  # fmt: skip
    """A backend's value and gradient, for samples in float64 whose numbers dtype holds exactly or is to round first."""
    given = [None if x is None else x.to(dtype) for x in (current, history, prior)]
    exact = [None if x is None else x.double() for x in given]
    value, gradient = run(TABLE[op][backend].run, *given, options)
    truth, true_gradient = run(OPS[op].reference, *exact, options)
    if dtype is torch.float32:
        plain, plain_gradient = run(OPS[op].reference, *given, options)
        allowed, eps = 2 * (plain - truth).abs(), 8 * torch.finfo(dtype).eps
        allowed_gradient = 2 * (plain_gradient - true_gradient).abs()
    else:  # the reference's own accuracy
        allowed, allowed_gradient, eps = 0, 0, 2e-12
    terms, gradient_terms = absolute_terms(op, *exact, options)
    assert (value - truth).abs() <= allowed + eps * terms
    excess = (gradient - true_gradient).abs() - allowed_gradient - eps * gradient_terms
    assert excess.max() <= 1e-30


def usable(op: str, options: dict, n: int, dim: int) -> bool:
    return not (n == 1 and options.get("estimator") == "unbiased" or dim == 1 and options.get("phi") == "asymptotic")


@dataclass(frozen=True)
class Sample:
    """A window, a prior and directions, in float32 or float64."""

    current: Tensor
    history: Tensor
    prior: Tensor | None
    directions: Tensor

    def to(self, dtype: torch.dtype) -> Sample:
        prior = None if self.prior is None else self.prior.to(dtype)
        return Sample(self.current.to(dtype), self.history.to(dtype), prior, self.directions.to(dtype))

    @property
    def window(self) -> Tensor:
        return torch.cat([self.history, self.current])


def evaluate(backend: str, sample: Sample, p: float) -> tuple[Tensor, Tensor]:
    """The value and its gradient for current."""
    current = sample.current.detach().requires_grad_()
    prior = "normal" if sample.prior is None else sample.prior
    with mk.use_backend(backend):
        value = mk.sliced_wasserstein(current, sample.history, prior, directions=sample.directions, p=p)
        (g_current,) = torch.autograd.grad(value, current)
    return value.detach(), g_current


def absolute_terms_of_sliced(exact: Sample, p: float) -> tuple[Tensor, Tensor]:
    """What a relative error of the products and costs is relative to: of the value [], of the gradient [D]."""
    x = (exact.window @ exact.directions).sort(0).values
    inside = (exact.window.abs() @ exact.directions.abs()).amax(0)
    if exact.prior is None:
        y = normal_bins(len(x))[0].to(x)[:, None].expand_as(x)
    else:
        y = (exact.prior @ exact.directions).sort(0).values
        inside = inside + (exact.prior.abs() @ exact.directions.abs()).amax(0)
    i, j, widths = (column.to(x.device) for column in quantile_coupling(len(x), len(y)))
    d = (x[i] - y[j]).abs()
    value = (widths @ (d**p + p * d ** (p - 1) * inside)).mean()
    slope = p * d.amax(0) ** (p - 1) + (p * (p - 1) * d.amax(0) ** (p - 2) * inside if p >= 2 else 0)
    return value, exact.directions.abs() @ slope / (len(x) * len(slope))


def well_ordered(exact: Sample, eps: float) -> Tensor:
    """[k]: whether no other row's projection comes so close that rounding could exchange the two."""
    projections = exact.window @ exact.directions
    margin = 8 * eps * (exact.window.abs() @ exact.directions.abs()).amax(0)
    ascending, order = projections.sort(dim=0, stable=True)
    apart = torch.nn.functional.pad(ascending.diff(dim=0) > margin, (0, 0, 1, 1), value=True)
    alone = torch.zeros_like(projections, dtype=torch.bool).scatter(0, order, apart[1:] & apart[:-1])
    return alone.all(1)[len(exact.history) :]


def check_sliced(backend: str, sample: Sample, p: float, *, exact_projections: bool = False) -> None:
    """A backend against the reference.

    Where projections are rounded, the ranks of neighbours are a matter of luck, and so is the slope for p < 2 at a
    small difference: there the gradient is compared for p >= 2 and well-ordered rows alone.
    """
    exact, eps = sample.to(F64), torch.finfo(sample.current.dtype).eps
    value, g_current = evaluate("reference", exact, p)
    plain_value, plain_g = evaluate("reference", sample, p)
    actual_value, actual_g = evaluate(backend, sample, p)
    assert actual_value.dtype == actual_g.dtype == sample.current.dtype and actual_g.shape == sample.current.shape

    value_terms, g_terms = absolute_terms_of_sliced(exact, p)
    assert (actual_value - value).abs() <= 2 * (plain_value - value).abs() + 8 * eps * value_terms
    if exact_projections or p >= 2:
        rows = slice(None) if exact_projections else well_ordered(exact, eps)
        error, plain = ((g - g_current).abs()[rows] for g in (actual_g, plain_g))
        assert (error <= 2 * plain + 8 * eps * g_terms).all()


def check_drawn(backend: str, sample: Sample, p: float) -> None:
    """Draws that the backend normalises, against the directions that they are; no norm is 1."""
    dtype, entry = sample.current.dtype, TABLE["sliced_wasserstein"][backend].gradient
    norms = torch.linspace(0.3, 27, sample.directions.shape[1]).to(sample.directions)
    drawn = (norms * sample.directions).unsqueeze(0)
    given = (sample.current, sample.history, sample.prior)
    exact = Sample(*given, unit(drawn)).to(F64)
    value_terms, g_terms = absolute_terms_of_sliced(exact, p)
    rows = well_ordered(exact, torch.finfo(dtype).eps)
    for measure in (True, False):
        of_draws, of_units = (entry(measure, *given, directions=each, p=p) for each in (drawn, unit(drawn)))
        error = (of_draws[0] - of_units[0]).abs()[rows]
        assert error.isfinite().all() and (error <= 16 * torch.finfo(dtype).eps * g_terms).all()
        if measure:
            assert (of_draws[1] - of_units[1]).abs() <= 16 * torch.finfo(dtype).eps * value_terms


def smooth(randn, n: int, k: int, m: int | None, dim: int, dtype: torch.dtype) -> Sample:
    """Normal rows off the origin, and unit directions; 19 of them fill no whole number of vectors."""
    rows = 1.5 * randn(n, dim, dtype=dtype) + 0.25
    directions = torch.nn.functional.normalize(randn(dim, 19, dtype=dtype), dim=0)
    return Sample(rows[n - k :], rows[: n - k], None if m is None else randn(m, dim, dtype=dtype), directions)


def lattice(n: int, k: int, m: int, dim: int, dtype: torch.dtype, scale: float = 1.0, spread: int = 4) -> Sample:
    """Small integers times a power of two: every projection is exact and most of them are tied."""
    generator = torch.Generator().manual_seed(n + dim)

    def draw(*shape: int) -> Tensor:
        return torch.randint(-spread, spread + 1, shape, generator=generator).to(dtype)

    rows = draw(n, dim) * scale
    return Sample(rows[n - k :], rows[: n - k], draw(m, dim) * scale, draw(dim, 19))
