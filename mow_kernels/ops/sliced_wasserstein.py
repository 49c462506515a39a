"""The sliced-Wasserstein distance: the public function, its checks, its row, and the projections a window keeps."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from mow_kernels import checks, transforms
from mow_kernels.autograd import Launch
from mow_kernels.calls import run, samples
from mow_kernels.compiling import constant_in_graphs
from mow_kernels.reference import sliced_wasserstein as reference
from mow_kernels.reference.sums import Sliced
from mow_kernels.registry import Call, DistanceOp, Keeps, Options
from mow_kernels.running import Differentiable, Running


def sliced_wasserstein(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    directions: int | Tensor = 50,
    p: float = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Sliced-Wasserstein distance W_p^p between the window [history; current] and the prior, without a root.

    The mean over L directions of the one-dimensional W_p^p of the projections, by exact quantile coupling also where
    n and m differ. Equal projections are ranked by row index.

        >>> z = torch.randn(4, 8, requires_grad=True)
        >>> mk.sliced_wasserstein(z, torch.randn(60, 8), directions=20).backward()        # z.grad is [4, 8]

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32. Of a batch of windows [B, k, D].
        history: [h, D] (or [B, h, D]), the rows before them, without gradient; None for none. n = h + k.
        prior: a sample [m, D] (or [B, m, D]), or "normal" for N(0, I) in closed form (p = 2 only).
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
    return run(_check(current, history, prior, directions=directions, p=p, generator=generator))


def draw_directions(current: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Random unit directions, as `sliced_wasserstein` draws them.

        >>> directions = mk.draw_directions(z, 50)        # one draw for several calls: directions=directions

    Args:
        current: [k, D], whose width, dtype and device they have.
        count: how many.
        generator: what randn(D, count) is drawn from in float32, then normalised and cast; None for the default
            generator of current's device.

    Returns:
        [D, count].
    """
    return reference.unit(_normals(current, count, generator)).to(current)


def _normals(current: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draws from N(0, I) in float32 [1, D, count], on the device of what draws them."""
    device = current.device if generator is None else generator.device
    return torch.randn(1, current.shape[-1], count, dtype=torch.float32, device=device, generator=generator)


def _directions(current: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """What every backend takes for that many directions: draws [1, D, count], which it normalises itself and so in no
    launch of its own; or in float64 directions [D, count], which are normalised in float32 and then cast."""
    if current.dtype == torch.float64:
        return draw_directions(current, count, generator)
    return _normals(current, count, generator).to(current.device)


def _check(
    current: Tensor,
    history: Tensor | None,
    prior: Tensor | str,
    *,
    directions: int | Tensor,
    p: float,
    generator: torch.Generator | None,
) -> Call:
    sample = samples(current, history, prior)
    p = checks.number("p", p, at_least=1)
    if sample[2] is None and p != 2:
        raise ValueError(f"p is {p:g} and prior 'normal'; the closed form has p = 2 (or pass a sample)")
    if isinstance(directions, Tensor):
        return Call(OP, sample, {"directions": _checked_directions(directions, current), "p": p})
    directions = checks.integer("directions", directions, " (a number of directions), or a tensor [D, L]")
    if directions < 1:
        raise ValueError(f"directions is {directions}; it must be at least 1")
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator is {generator!r}; it must be a torch.Generator or None")
    return Call(
        OP, sample, {"directions": functools.partial(_directions, count=directions, generator=generator), "p": p}
    )


def _checked_directions(value: Tensor, current: Tensor) -> Tensor:
    checks.alike("directions", value, current)
    dim = current.shape[-1]
    if value.dim() != 2 or value.shape[0] != dim or value.shape[1] == 0:
        raise ValueError(f"directions has shape {list(value.shape)}; it must be [D, L] with D = {dim}, L >= 1")
    checked = checks.rows("directions", value)
    checks.constant("directions", checked, current)
    return checked


def _draw(call: Call) -> Call:
    """The call with directions in the place of what draws them."""
    directions = call.options["directions"]
    if isinstance(directions, Tensor):
        return call
    return call._replace(options={**call.options, "directions": directions(call.arguments[0])})


@constant_in_graphs
def normal_bins(n: int, device: torch.device | None = None) -> Tensor:
    """[the mean variance of N(0, 1) inside n equal quantile bins, the bins' means, ascending...], of float64, on the
    device: what equation (2) of the reference needs."""
    bins = _normal_bins(n, device)
    if bins.is_cuda and torch.cuda.is_current_stream_capturing():
        _CAPTURED[bins.data_ptr()] = bins
    return bins


@functools.lru_cache(maxsize=256)
@transforms.outside
def _normal_bins(n: int, device: torch.device | None) -> Tensor:
    means, variance_inside = reference.normal_bins(n)
    return torch.cat([means.new_tensor([variance_inside]), means]).to(device)


_CAPTURED: dict[int, Tensor] = {}
"""The tables that a CUDA graph reads at every replay: no cache may give back their memory."""


def _fused_arguments(like: Tensor, n: int, normal: bool, options: Options) -> tuple[Any, ...]:
    bins = normal_bins(n, like.device if like.is_cuda else None) if normal else None
    return options["directions"], bins, options["p"]


def _to_normal(n: int, dim: int, *, directions: Tensor, p: float) -> Sliced:
    def over(current: Tensor, history: Tensor) -> Tensor:
        axes = torch.eye(current.shape[1], dtype=current.dtype, device=current.device)  # the columns as they are
        return sliced_wasserstein(current, history, directions=axes)

    return Sliced(reference.unit(directions), over)


_STATE = 8
"""Keys that take as much as the state of the ring, which a GPU keeps behind them (csrc/cuda/sliced_wasserstein.h)."""


class SortedProjections(Running):
    """A window of n rows and its projections on directions that stay, sorted, for `mow_kernels.sliced_wasserstein`.

        >>> kept = mk.SortedProjections(4096, mk.draw_directions(z, 50))
        >>> value = kept.distance(z)        # over [the newest n-k rows; z] to N(0, I)
        >>> kept.push(z)

    The value and the gradient are those of the direct call up to rounding. A step takes O(n L) moves of numbers and
    O(k D L) for the projections of the new rows, and the window itself 3 n L numbers; the direct call projects and
    sorts all rows, O(n L (D + log^2 n)).

    Args:
        n: rows of the full window, >= 1.
        directions: [D, L], float32 or float64, on the CPU or on a GPU for which the backend "cuda" was built.

    Raises:
        ValueError, TypeError: a bad argument, by name; no native library (`why_not_running` says why).
    """

    def __init__(self, n: int, directions: Tensor) -> None:
        if not isinstance(directions, Tensor) or directions.dim() != 2:
            raise ValueError("directions must be a tensor [D, L]")
        options = {"directions": directions, "p": 2.0}
        super().__init__(OP, n, directions.shape[0], directions.dtype, options, device=directions.device)
        self._directions, self._version = directions, directions._version
        keys = torch.int32 if directions.dtype == torch.float32 else torch.int64
        self._keys = torch.zeros(3 * directions.shape[1] * n + _STATE, dtype=keys, device=directions.device)
        self._list = 0

    @classmethod
    def begin(cls, op: DistanceOp, n: int, like: Tensor, sampled: bool, options: Options) -> Running:
        """See `Keeps.begin`."""
        return cls(n, options["directions"])

    def serves(self, options: Options) -> bool:
        """Whether these are the directions, unchanged."""
        directions = options["directions"]
        return directions is self._directions and directions._version == self._version

    def _launch(self, prior: Tensor | None, k: int, reference: Differentiable) -> Launch:
        bins = normal_bins(min(self.rows, self.n - k) + k, None if self._on_cpu else self._device)
        arguments = (self.n, self._head, self.rows, self._list, self._directions, bins)
        return Launch(
            self._measure, None, self._keys, None, lambda *_: arguments, reference, self._options, stays=False
        )

    def _measure(self, current: Tensor, keys: Tensor, prior: None, *arguments: Any) -> tuple[Tensor, Tensor]:
        return self._fwd(keys, current, *arguments)

    def _append(self, rows: Tensor, prior: Tensor | None, evaluated: bool) -> None:
        self._push(self._keys, rows, self.n, self._head, self.rows, self._list, self._directions, evaluated)
        self._list = 1 - self._list


def _why_not_kept(sampled: bool, options: Options) -> str | None:
    if sampled:
        return "sliced-Wasserstein has none against a sample"
    if not isinstance(options["directions"], Tensor):
        return "the directions are drawn afresh at each step (keep=... keeps them)"
    return None


OP = DistanceOp(
    "sliced_wasserstein",
    sliced_wasserstein,
    _check,
    reference.sliced_wasserstein,
    draw=_draw,
    fused_arguments=_fused_arguments,
    to_normal=_to_normal,
    keeps=Keeps(SortedProjections.begin, "sorted", _why_not_kept, may_change=("directions", "generator")),
)
