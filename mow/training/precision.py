"""Passes that take less memory, or less time: half precision, gradient checkpointing, channels last."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mow.training.trainer import Trainer

Precision = Literal["fp32", "bf16", "fp16"]

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Frugal(nn.Module):
    """An encoder or a decoder whose passes take less.

    Args:
        module: from a tensor to a tensor; it is taken over as it is, not copied.
        precision: "bf16" or "fp16" run it under `torch.autocast`, with weights in float32 as they were. The result is
            float32: distances and errors are differences of large sums, which half precision would drown. Train
            "fp16" with a `ScalingTrainer`, since small gradients vanish in it.
        checkpointing: keep the input alone for the backward pass, which then runs the forward pass once more.
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
        if precision != "fp32" and precision not in _HALVES:
            raise ValueError(f"precision is {precision!r}; it must be fp32, bf16 or fp16")
        if channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not among the stub's overloads
        self.module, self.dtype, self.checkpointing = module, _HALVES.get(precision), checkpointing

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self._pass, x, use_reentrant=False)
        return self._pass(x)

    def _pass(self, x: Tensor) -> Tensor:
        if self.dtype is None:
            return self.module(x)
        with torch.autocast(x.device.type, self.dtype):
            return self.module(x).float()


class ScalingTrainer(Trainer):
    """A trainer for encoders and decoders in fp16: the gradients pass through them scaled up.

    `scaler` is a `torch.amp.GradScaler`: a step whose gradients overflow is left out and halves the scale, 2,000 steps
    without one double it. The latents of such a step enter the window all the same. Arguments as for `Trainer`.

    Raises:
        ValueError: cuda_graph is True: the host looks for the overflow in every step.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        if options.get("cuda_graph"):
            raise ValueError("cuda_graph is True, which a step with scaled gradients does not go with")
        super().__init__(*args, **options)
        self.scaler = torch.amp.GradScaler(self.window.latents.device.type)

    def _backward(self, reconstruction: Tensor, z: Tensor, g_z: Tensor) -> bool:
        self.optimizer.zero_grad()
        scale = self.scaler.scale(torch.ones_like(reconstruction))
        if z.requires_grad:
            torch.autograd.backward((reconstruction, z), (scale, scale * g_z))
        else:  # nothing of the encoder is trained
            reconstruction.backward(scale)
        if not self._admits(reconstruction.detach() + g_z.sum()):
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return True

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "scaler": self.scaler.state_dict()}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self.scaler.load_state_dict(state["scaler"])
