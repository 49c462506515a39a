"""The bytes of a training step at any size: what it keeps for its backward pass, and what it holds at its peak.

Counted on the meta device from the tensors that PyTorch makes. Not counted: what a convolution works with inside, what
the allocator rounds up, and the distance, which keeps a gradient [k, D] over a window [n, D].
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mow.app.architectures import ARCHITECTURES
from mow.training.precision import Frugal
from studies.high_resolution.kept import kept_bytes

ARCHITECTURE = "ffhq"
KS = (1, 8, 64)


class Live(TorchDispatchMode):
    """Bytes of the storages made inside that are alive, and the most there were at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.bytes -= size


def measure(side: int, k: int, checkpointing: bool = False) -> dict[str, Any]:
    """Bytes of a step on k pictures [3, side, side] with FFHQ's architecture.

    Returns:
        kept: between the forward and the backward pass, parameters left out.
        peak: the most at a time in forward and backward pass, beside parameters, optimiser and gradients of parameters
            from the step before; the pictures and these gradients included.
        parameters: of encoder and decoder.
    """
    with torch.device("meta"):
        networks = ARCHITECTURES[ARCHITECTURE].build((3, side, side))
        x = torch.empty(k, 3, side, side)
    if checkpointing:
        networks = tuple(Frugal(network, checkpointing=True) for network in networks)
    encoder, decoder = networks
    parameters = [*encoder.parameters(), *decoder.parameters()]

    def forward(x: Tensor) -> Tensor:
        return (decoder(encoder(x)) - x).square().sum()

    kept = kept_bytes(lambda: forward(x), parameters)
    with Live() as live:
        forward(torch.empty_like(x)).backward()
    return {
        "side": side,
        "k": k,
        "checkpointing": checkpointing,
        "kept": kept,
        "peak": live.peak,
        "parameters": sum(p.nbytes for p in parameters),
    }


def run() -> dict[str, Any]:
    """Every k at 128, 256, 512 and 1024, and at 1024 with checkpointing too."""
    rows = [measure(side, k) for side in (128, 256, 512, 1024) for k in KS]
    return {"architecture": ARCHITECTURE, "rows": rows + [measure(1024, k, checkpointing=True) for k in KS]}
