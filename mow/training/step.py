"""One step of training by moving window, as a function of the networks, the optimiser, the window and new elements.

Source: "One-element Batch Training by Moving Window" (2019), section 3, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from mow.checks import output
from mow.training.buffers import Buffers
from mow.training.exchange import Exchange
from mow.training.weighting import Weighting, over
from mow.window.distances import Distance
from mow.window.window import MovingWindow


def step(
    encoder: nn.Module,
    decoder: nn.Module,
    distance: Distance,
    window: MovingWindow,
    optimizer: Optimizer,
    x: Tensor,
    *,
    k: int,
    weight: float,
    weighting: Weighting,
    root: bool,
    reencode: bool,
    measure: bool,
    scaler: GradScaler,
    exchange: Exchange,
    admits: Callable[[Tensor], bool] | None,
    total: int | None = None,
) -> dict[str, Tensor]:
    """One step of the optimiser down the cost R + weight * s * T(F), and the new latents into the window.

        >>> from mow.training.exchange import Exchange
        >>> from mow.training.step import step
        >>> from mow.training.weighting import WEIGHTINGS
        >>> adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
        >>> how = {"k": 8, "weight": 1.0, "weighting": WEIGHTINGS["paper"], "root": False, "reencode": True}
        >>> scaler = torch.amp.GradScaler("cpu", enabled=False)
        >>> others = {"measure": True, "scaler": scaler, "exchange": Exchange(), "admits": lambda health: True}
        >>> sorted(step(encoder, decoder, mow.CramerWold(), window, adam, x, **how, **others))
        ['distance', 'loss', 'reconstruction']

    Args:
        encoder, decoder, distance, window, k, weight, root, reencode: as for `mow.Trainer`.
        optimizer: of the parameters of encoder and decoder.
        x: the new elements of this process [<= k, ...], on the window's device.
        weighting: how R and s follow from n and k.
        measure: ask for the value of the distance too.
        scaler: scales the gradients that pass through the networks; `GradScaler(enabled=False)` leaves them.
        exchange: with the other processes.
        admits: whether a step is taken, from a 0-d tensor that is finite only if R and the distance's gradient are;
            None for every one, without computing that. Of one that is not taken, or raises, no buffer is written.
        total: the new elements of all processes, None where that is not known.

    Returns, raises:
        as `mow.Trainer.step`.
    """
    before = None if admits is None else Buffers(encoder, decoder)
    try:
        z = output("encoder", exchange.encode(encoder, x, total), 2, LATENTS)
        errors = squared_errors(decoder(z), x)

        found = slopes(z, errors, distance, window, exchange, weight, weighting, root, measure, admits is not None)

        # Both gradients are known where they enter the networks, at the errors and at z.
        clear_gradients(optimizer)
        g_z, g_errors, health = found.g_z, found.g_errors, found.health
        if z.requires_grad:
            health = exchange.backward((errors, z), (scaler.scale(g_errors), scaler.scale(g_z)), health)
        else:  # nothing of the encoder is trained
            health = exchange.backward((errors,), (scaler.scale(g_errors),), health)

        admitted = admits is None or admits(health)
        if admitted:
            before = None
    finally:
        if before is not None:  # the step is not taken, or did not come so far
            before.restore()

    if admitted:
        scaler.step(optimizer)
        scaler.update()
        if k < window.n:  # the classical method, k = n, never looks back
            with torch.no_grad():
                if reencode:
                    with Buffers(encoder):
                        again = encoder(x)
                    exchange.push(again, window)
                else:
                    exchange.enter(found.rows, window)

    return found.results(len(x), distance, exchange, weighting, root)


class Slopes(NamedTuple):
    """The gradients of the cost R + weight * s * T(F) where they enter the networks, and what they came from."""

    g_z: Tensor
    """For this process's latents z [k, D]."""
    g_errors: Tensor
    """For its errors [k]."""
    health: Tensor
    """0-d, finite only if R and the distance's gradient are."""
    rows: Tensor
    """The new latents of all processes."""
    error: Tensor
    """The sum of `errors`, 0-d."""
    reconstruction: Tensor
    """R, 0-d; without a root of this process's errors alone."""
    factor: float
    """weight * s."""
    value: Tensor | None
    """F, 0-d, where it was asked for."""

    def results(
        self, k: int, distance: Distance, exchange: Exchange, weighting: Weighting, root: bool
    ) -> dict[str, Tensor]:
        """What a step returns."""
        if self.value is None:
            return {"reconstruction": over(self.error, k)}
        new, reconstruction = self.rows.shape[0], self.reconstruction
        agreed = exchange.agreed(self.error, self.value)
        if agreed is not self.error:
            reconstruction = weighting.reconstruction(agreed, new, root)
        loss = reconstruction + self.factor * distance.transform(self.value)
        return {"loss": loss, "reconstruction": over(agreed, new), "distance": self.value}


def slopes(
    z: Tensor,
    errors: Tensor,
    distance: Distance,
    window: MovingWindow,
    exchange: Exchange,
    weight: float,
    weighting: Weighting,
    root: bool,
    measure: bool,
    looked_at: bool,
) -> Slopes:
    """The middle of a step: F over [history; z], with its gradient for z alone, and R; arguments as of `step`, and
    whether anybody looks at `health`, for whom alone it is computed."""
    rows = exchange.receive(z, window)
    new = rows.shape[0]
    present = max(new, min(window.span, len(window) + new))
    g_z, value = exchange.gradient(distance, rows, window, measure)
    factor = weight * weighting.scale(present, new)
    g_z = factor * g_z

    error = errors.detach()
    error = error[0] if error.shape[0] == 1 else error.sum()
    reconstruction = weighting.reconstruction(exchange.sum(error) if root else error, new, root)
    g_errors = weighting.slope(errors, reconstruction, new, root)
    health = reconstruction + g_z.sum() if looked_at else reconstruction
    return Slopes(g_z, g_errors, health, rows, error, reconstruction, factor, value)


LATENTS = "latents, a tensor [k, D]"


def clear_gradients(optimizer: Optimizer) -> None:
    """`optimizer.zero_grad()`, whose bookkeeping takes a twentieth of the step of a small model."""
    if getattr(optimizer.zero_grad, "__func__", None) is not Optimizer.zero_grad:  # it has its own, or is a wrapper
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def squared_errors(decoded: Tensor, x: Tensor) -> Tensor:
    """The sum of squares of each element's reconstruction error. [k, ...] -> [k].

    Raises:
        TypeError: the decoder gave no tensor.
        ValueError: the shapes differ.
    """
    output("decoder", decoded, None, "a tensor of x's shape")
    if decoded.shape != x.shape:
        raise ValueError(f"the decoder gives shape {list(decoded.shape)}; it must be x's, {list(x.shape)}")
    return mse_loss(decoded, x, reduction="none").flatten(1).sum(1)
