"""How many bytes the forward pass keeps for the backward pass; on the meta device for any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def kept_bytes(forward: Callable[[], object], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that autograd saves during `forward`, which returns what holds the graph.

    A storage that several operations save, whole or in views, counts once; those of `besides` (the parameters) not at
    all. What checkpointing recomputes is not kept and not counted.
    """
    left_out = {tensor.untyped_storage()._cdata for tensor in besides}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in left_out:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = forward()  # held until all is counted: a storage that is freed could give its address to another
        del graph
    return sum(kept.values())
