"""The public functions: distances between the window [history; current] and a prior, with a gradient for current."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import torch
from torch import Tensor

from mow_kernels import checks
from mow_kernels.centers import check_k_center, k_center
from mow_kernels.registry import Call, Explanation, explain_call, select

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The seven scales of the WAE-MMD kernel (Tolstikhin et al. 2018)."""

_TOO_FEW = "estimator is 'unbiased' and {} 1 row; it needs at least 2 (or 'biased')"

P = ParamSpec("P")


def _distance(check: Callable[P, Call]) -> Callable[P, Tensor]:
    """Turns the function that checks the arguments of a distance into the one that computes it."""

    @functools.wraps(check)
    def distance(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        op, arguments, options = check(*args, **kwargs)
        return select(op, arguments, options).run(*arguments, **options)

    distance.__signature__ = inspect.signature(check).replace(return_annotation="Tensor")  # type: ignore[attr-defined]
    return distance


@_distance
def mmd(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    kernel: str = "imq",
    scales: Sequence[float] = SCALES,
    estimator: str = "unbiased",
) -> Call:
    r"""Squared maximum mean discrepancy between the window [history; current] and the prior.

    MMD = E k(z,z') + E k(v,v') - 2 E k(z,v), with r = |x-y|^2 and k summed over the scales s:
    "imq" k = sum_s 2Ds/(2Ds + r), "gaussian" k = sum_s exp(-r/(2Ds)).

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32.
        history: [h, D], the rows before them, without gradient; None for none. n = h + k.
        prior: a sample [m, D], or "normal" for N(0, I) in closed form: no sampling noise, no work that grows with m.
        kernel: "imq" or "gaussian".
        scales: the s above; for a prior of variance sigma^2, multiply them by sigma^2.
        estimator: "unbiased" leaves the pairs i = j out of both means within a sample (and may be negative), "biased"
            keeps them.

    Returns:
        0-d, on the scale of the kernel sum (between -len(scales) and 2 len(scales)), float32 for half inputs, else of
        current's dtype.

    Raises:
        TypeError, ValueError: a bad argument, by name; "unbiased" with n = 1 or m = 1.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, lemma 6; Tolstikhin et al., "Wasserstein
    Auto-Encoders", ICLR 2018, for the kernel and scales.
    """
    sample = _samples(current, history, prior)
    checks.choice("kernel", kernel, ("imq", "gaussian"))
    checks.choice("estimator", estimator, ("unbiased", "biased"))
    if scales is not SCALES:
        scales = checks.scales(scales)
    if estimator == "unbiased":
        current, history, drawn = sample
        if current.shape[0] + history.shape[0] == 1:
            raise ValueError(_TOO_FEW.format("current and history have"))
        if drawn is not None and drawn.shape[0] == 1:
            raise ValueError(_TOO_FEW.format("prior has"))
    return Call("mmd", sample, {"kernel": kernel, "scales": scales, "estimator": estimator})


@_distance
def cramer_wold(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    gamma: float | None = None,
    phi: str = "exact",
) -> Call:
    r"""Squared Cramer-Wold distance between the window [history; current] and the prior.

    The L2 distance between the Gaussian-smoothed (variance gamma) one-dimensional projections of both, averaged over
    all directions; closed forms in `mow_kernels/reference/cramer_wold.py`.

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32.
        history: [h, D], the rows before them, without gradient; None for none. n = h + k.
        prior: "normal" for N(0, I), or a sample [m, D].
        gamma: the smoothing, > 0; None for Silverman's rule (4/(3n))^0.4.
        phi: "exact", phi_D(s) = 1F1(1/2; D/2; -s) for every D, or "asymptotic", its form for large D that public code
            uses and that keeps the distance above a positive floor. The factor 1/(2 sqrt(pi)) is part of both: the
            public code's figure is this one with "asymptotic" times 2 sqrt(pi).

    Returns:
        0-d, float32 for half inputs, else of current's dtype; >= 0 up to rounding with "exact".

    Raises:
        TypeError, ValueError: a bad argument, by name; "asymptotic" with D = 1, where it has no value.

    Source: Tabor et al., "Cramer-Wold Auto-Encoder", JMLR 2020, theorem 1 and section 4.
    """
    sample = _samples(current, history, prior)
    checks.choice("phi", phi, ("exact", "asymptotic"))
    if phi == "asymptotic" and sample[0].shape[1] == 1:
        raise ValueError("phi is 'asymptotic' and current has D = 1; it needs D >= 2 (or 'exact')")
    if gamma is None:
        gamma = (4 / (3 * (sample[0].shape[0] + sample[1].shape[0]))) ** 0.4
    else:
        gamma = checks.number("gamma", gamma, above=0)
    return Call("cramer_wold", sample, {"gamma": gamma, "phi": phi})


@_distance
def sliced_wasserstein(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    directions: int | Tensor = 50,
    p: float = 2,
    generator: torch.Generator | None = None,
) -> Call:
    r"""Sliced-Wasserstein distance W_p^p between the window [history; current] and the prior, without a root.

    The mean over L directions of the one-dimensional W_p^p of the projections, by exact quantile coupling also where
    n and m differ. Equal projections are ranked by row index.

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32.
        history: [h, D], the rows before them, without gradient; None for none. n = h + k.
        prior: a sample [m, D], or "normal" for N(0, I) in closed form (p = 2 only).
        directions: how many unit directions to draw, or a tensor [D, L] used as it is.
        p: the power, >= 1.
        generator: what the directions are drawn from: randn(D, L) in float32 on the generator's device, normalised,
            then cast; the same draw for every backend. None for the default generator of current's device.

    Returns:
        0-d, in units of the latents to the power p, float32 for half inputs, else of current's dtype.

    Raises:
        TypeError, ValueError: a bad argument, by name; "normal" with p other than 2.

    Source: Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015; Kolouri et al.,
    "Sliced-Wasserstein Auto-Encoder", 2018.
    """
    sample = _samples(current, history, prior)
    p = checks.number("p", p, at_least=1)
    if sample[2] is None and p != 2:
        raise ValueError(f"p is {p:g} and prior 'normal'; the closed form has p = 2 (or pass a sample)")
    if isinstance(directions, Tensor):
        directions = checks.directions(directions, current)
    elif isinstance(directions, bool) or not isinstance(directions, int):
        raise TypeError(f"directions is {directions!r}; it must be a number of directions or a tensor [D, L]")
    elif directions < 1:
        raise ValueError(f"directions is {directions}; it must be at least 1")
    elif not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator is {generator!r}; it must be a torch.Generator or None")
    else:
        directions = draw_directions(sample[0], directions, generator)
    return Call("sliced_wasserstein", sample, {"directions": directions, "p": p})


def gradient(
    function: Callable[..., Tensor],
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    measure: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of a distance for current, without autograd, and with `measure` the value that it belongs to.

    The same bits as by autograd. The gradient alone visits only what depends on current: O(k (n + m) D) for `mmd` and
    `cramer_wold`, where the value takes O((n + m)^2 D); and `sliced_wasserstein` needs the ranks of the k rows, not the
    sorted window (backend "cpp"; the others compute the value as well). To hand it to autograd:
    `torch.autograd.backward((loss, z), (None, weight * g_z))`.

    Args:
        function: mmd, cramer_wold or sliced_wasserstein.
        current, history, prior, options: of that function.
        measure: compute the value, too.

    Returns:
        [k, D] of current's dtype, and 0-d or None; neither has a graph.

    Raises:
        ValueError: function is none of them.
        What the function itself raises.
    """
    if function not in (mmd, cramer_wold, sliced_wasserstein):
        raise ValueError(f"function is {function!r}; it must be mmd, cramer_wold or sliced_wasserstein of mow_kernels")
    op, arguments, checked = check(function, current, history, prior, **options)
    alone = select(op, arguments, checked).gradient
    g_current, value = alone(measure, *arguments, **checked)  # type: ignore[misc]  # every distance has one
    return g_current.to(current.dtype), value


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Where a call of a public function would run. Checks the arguments; runs nothing and draws nothing.

    Returns:
        `.backend`, `.reasons` (every other backend -> why not), and a readable str().

    Raises:
        ValueError: not one of the public functions.
        What the call itself would raise for its arguments.
    """
    if function not in (mmd, cramer_wold, sliced_wasserstein, k_center):
        names = "mmd, cramer_wold, sliced_wasserstein or k_center"
        raise ValueError(f"function is {function!r}; it must be {names} of mow_kernels")
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    if function is k_center:
        if bound.arguments["start"] is None:
            bound.arguments["start"] = 0
        return explain_call(check_k_center(*bound.args, **bound.kwargs))
    current, directions = bound.arguments["current"], bound.arguments.get("directions")
    if isinstance(directions, int) and directions >= 1 and isinstance(current, Tensor) and current.dim() == 2:
        bound.arguments["directions"] = current.new_empty(current.shape[1], directions)
    return explain_call(check(function, *bound.args, **bound.kwargs))


def check(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Call:
    """What a public function makes of its arguments; raises what it would."""
    return function.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]  # functools.wraps sets it


def _samples(current: Tensor, history: Tensor | None, prior: Tensor | str) -> tuple[Tensor, Tensor, Tensor | None]:
    """current, history (with no rows for None) and prior (None for "normal"), checked and widened."""
    if isinstance(prior, str):
        if prior == "normal" and checks.are_plain(current, history):
            return current, history, None  # type: ignore[return-value]  # it was seen to be a tensor
    elif checks.are_plain(current, history, prior):
        return current, history, prior  # type: ignore[return-value]  # as above
    checked = checks.rows("current", current)
    if checked.shape[0] == 0:
        raise ValueError(f"current has shape {list(current.shape)}; it must have at least one row")
    past = checked.new_empty(0, checked.shape[1]) if history is None else checks.companion("history", history, current)
    if isinstance(prior, str):
        checks.choice("prior", prior, ("normal",))
        return checked, past, None
    sample = checks.companion("prior", prior, current)
    if sample.shape[0] == 0:
        raise ValueError(f"prior has shape {list(sample.shape)}; it must have at least one row")
    return checked, past, sample


def draw_directions(current: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """count random unit directions [D, count] of the dtype and device of current [k, D], as `sliced_wasserstein` draws
    them: randn(D, count) in float32 on the generator's device (None: current's), normalised, then cast."""
    device = current.device if generator is None else generator.device
    drawn = torch.randn(current.shape[1], count, dtype=torch.float32, device=device, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=0).to(current)
