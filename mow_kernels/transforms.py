"""A distance under the transforms of torch.func (grad, vmap, jvp, jacrev, hessian...) and for dual numbers.

PyTorch transforms Functions that are given every tensor as an argument, so a `Launch` comes apart here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._C import _functorch

if TYPE_CHECKING:
    from mow_kernels.autograd import Launch
    from mow_kernels.registry import Options

P = ParamSpec("P")
T = TypeVar("T")


class Value(torch.autograd.Function):
    """The value of a launch for `current`, with `Gradient` for its derivative."""

    @staticmethod
    def forward(parts: Parts, current: Tensor, *others: Any) -> Tensor:
        launch = parts.joined(*others)
        return launch.fwd(*launch.samples(current), False)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, g_out: Tensor | None) -> tuple[Tensor | None, ...]:
        g_current = None if g_out is None else g_out * Gradient.apply(ctx.parts, *ctx.saved_tensors)
        return None, g_current, *_NONE[: len(ctx.saved_tensors) - 1]

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor, *others: Tensor | None) -> Tensor:
        _check_tangents(others)
        return (Gradient.apply(ctx.parts, *ctx.saved_tensors) * tangent).sum()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], parts: Parts, *samples: Tensor | None) -> tuple[Tensor, int]:
        return _one_by_one(Value, info.batch_size, in_dims, parts, samples), 0


class Gradient(torch.autograd.Function):
    """The gradient of a launch for `current`, with the reference's second derivative for its own, and so on."""

    @staticmethod
    def forward(parts: Parts, current: Tensor, *others: Any) -> Tensor:
        if parts.known is not None:
            return parts.known
        launch = parts.joined(*others)
        samples = launch.samples(current)
        return launch.fwd(*samples, True)[1] if launch.alone is None else launch.alone(*samples)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, g_out: Tensor | None) -> tuple[Tensor | None, ...]:
        g_current = None if g_out is None else ctx.parts.hessian_times(g_out, *ctx.saved_tensors)
        return None, g_current, *_NONE[: len(ctx.saved_tensors) - 1]

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor, *others: Tensor | None) -> Tensor:
        _check_tangents(others)
        return ctx.parts.hessian_times(tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], parts: Parts, *samples: Tensor | None) -> tuple[Tensor, int]:
        return _one_by_one(Gradient, info.batch_size, in_dims, parts, samples), 0


class Parts:
    """A launch without its tensors, which a Function must be given one by one."""

    def __init__(self, launch: Launch, names: tuple[str, ...], known: Tensor | None) -> None:
        self._launch, self._names = launch, names
        self.known = known
        """The gradient, where it has been computed."""

    def joined(self, history: Any, prior: Tensor | None, *tensors: Tensor) -> Launch:
        """The launch with these for its own."""
        if not self._launch.stays:
            history, prior = self._launch.history, self._launch.prior
        return self._launch._replace(history=history, prior=prior, options=self._options(tensors))

    def hessian_times(
        self, vector: Tensor, current: Tensor, history: Tensor | None, prior: Tensor | None, *tensors: Tensor
    ) -> Tensor:
        """The reference's second derivative for current times a vector [k, D], from either side: it is symmetric."""
        options = self._options(tensors)
        gradient = torch.func.grad(lambda current: self._launch.reference(current, history, prior, **options))
        (product,) = torch.func.vjp(gradient, current)[1](vector)
        return product

    def without_known(self) -> Parts:
        """The same to be computed anew."""
        return self if self.known is None else Parts(self._launch, self._names, None)

    def _options(self, tensors: tuple[Tensor, ...]) -> Options:
        return self._launch.options | dict(zip(self._names, tensors, strict=True))


def apart(launch: Launch, current: Tensor, known: Tensor | None = None) -> tuple[Any, ...]:
    """What `Value` and `Gradient` are applied to: parts, current, history, prior and the options that are tensors."""
    tensors = {name: option for name, option in launch.options.items() if isinstance(option, Tensor)}
    history, prior = (launch.history, launch.prior) if launch.stays else (None, None)
    return Parts(launch, tuple(tensors), known), current, history, prior, *tensors.values()


_NONE = (None,) * 16
"""No gradient for the samples beside current and the options, of which no op has as many."""


def _save(ctx: Any, parts: Parts, *samples: Tensor | None) -> None:
    ctx.parts = parts.without_known()
    ctx.save_for_backward(*samples)
    ctx.save_for_forward(*samples)
    ctx.set_materialize_grads(False)


def _check_tangents(others: tuple[Tensor | None, ...]) -> None:
    if any(tangent is not None for tangent in others):
        raise ValueError("only current has a derivative, and another sample has a tangent: see differentiable()")


def _one_by_one(
    function: Any, size: int, in_dims: tuple[Any, ...], parts: Parts, samples: tuple[Tensor | None, ...]
) -> Tensor:
    """A Function applied to each of a batch, and the results stacked."""
    batch = zip(samples, in_dims[1:], strict=True)
    columns = [itertools.repeat(x, size) if x is None or dim is None else x.unbind(dim) for x, dim in batch]
    return torch.stack([function.apply(parts, *each) for each in zip(*columns, strict=True)])


def outside(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose results are kept: computed as if nothing were transformed, since a tensor that belongs to a
    transform is of no use after its end."""

    @functools.wraps(function)
    def untransformed(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch._C._DisableFuncTorch():
            return function(*args, **kwargs)

    return untransformed


def check_forward_mode(name: str) -> None:
    """Raises NotImplementedError for forward mode within forward mode, of which PyTorch's Functions, such as `name`'s,
    lose the outer derivative in silence."""
    if torch.compiler.is_compiling():
        return
    levels = _functorch.get_interpreter_stack() or ()
    if sum(level.key() == _functorch.TransformType.Jvp for level in levels) > 1:
        raise NotImplementedError(
            f"{name} cannot be differentiated by forward mode twice; take reverse mode within, as torch.func.hessian "
            "does: jacfwd(jacrev(...))"
        )
