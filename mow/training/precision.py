"""Passes that take less memory, or less time: half precision, gradient checkpointing, channels last."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.checkpoint import checkpoint

from mow.checks import expect
from mow.training.buffers import Buffers
from mow.training.trainer import Trainer
from mow.window.distances import Distance
from mow.window.window import MovingWindow

Precision = Literal["fp32", "bf16", "fp16"]

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Frugal(nn.Module):
    """An encoder or a decoder whose passes take less.

        >>> from mow.training.precision import Frugal
        >>> Frugal(encoder, precision="bf16", checkpointing=True)(x).dtype
        torch.float32

    Args:
        module: from a tensor to a tensor; it is taken over as it is, not copied.
        precision: "bf16" or "fp16" run it under `torch.autocast`, with weights in float32 as they were. The result is
            float32: distances and errors are differences of large sums, which half precision would drown. Train
            "fp16" with a scaler, `mow.Trainer(scaler=torch.amp.GradScaler(...))`, since small gradients vanish in it.
        checkpointing: keep the input alone for the backward pass, which then runs the forward pass once more (and
            leaves batch norm's statistics and other buffers as the first one did).
        channels_last: lay the weights, and with them the activations, out as [k, H, W, C] in memory.

    Raises:
        ValueError: another precision.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        precision: Precision = "fp32",
        checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        expect(isinstance(module, nn.Module), "module", module, "an object of torch.nn.Module")
        if precision != "fp32" and precision not in _HALVES:
            raise ValueError(f"precision is {precision!r}; it must be fp32, bf16 or fp16")
        if channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not among the stub's overloads
        self.module, self.dtype, self.checkpointing = module, _HALVES.get(precision), checkpointing

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            before = Buffers(self.module)
            if not before:
                return checkpoint(self._pass, x, use_reentrant=False)
            contexts = (nullcontext(), before.repeated())
            return checkpoint(self._pass, x, use_reentrant=False, context_fn=lambda: contexts)
        return self._pass(x)

    def _pass(self, x: Tensor) -> Tensor:
        if self.dtype is None:
            return self.module(x)
        with torch.autocast(x.device.type, self.dtype):
            return self.module(x).float()


class ScalingTrainer(Trainer):
    """A trainer for encoders and decoders in fp16: `Trainer` with a `torch.amp.GradScaler` of PyTorch's own defaults.

        >>> from mow.training.precision import ScalingTrainer
        >>> trainer = ScalingTrainer(encoder, decoder, mow.CramerWold(), window)
        >>> history = trainer.fit(pictures, steps=3)

    A step whose gradients overflow halves the scale, 2,000 steps without one double it. Arguments as for `Trainer`.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, distance: Distance, window: MovingWindow, **options: Any
    ) -> None:
        scaler = GradScaler(window.latents.device.type)
        super().__init__(encoder, decoder, distance, window, scaler=scaler, **options)
