"""Passes that do not train leave no trace: the buffers of the modules are put back as they were.

A pass in training mode writes more than its result: batch norm's running statistics, the vectors of spectral norm's
power iteration. One that fills a window, measures memory or draws pictures must not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from mow.window.window import MovingWindow


class Buffers:
    """The buffers of modules as they are now, to be put back bit for bit; as a context manager, in the end.

        >>> with Buffers(encoder), torch.no_grad():
        ...     z = encoder(x)

    Without buffers it costs a look at each submodule. Windows are left out: what writes them is a push, no pass.

    Args:
        modules: with all of their submodules.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._owners: dict[nn.Module, list[tuple[str, Tensor, Tensor]]] = {}
        self._seen: set[nn.Module] = set()
        for module in modules:
            self.take(module)

    def take(self, module: nn.Module) -> None:
        """A module more, as it is now; what is known already stays as it was."""
        seen = self._seen
        found: list[nn.Module | None] = [module]
        for owner in found:  # which grows meanwhile
            if owner is None or owner in seen:
                continue
            seen.add(owner)
            if owner._buffers and not isinstance(owner, MovingWindow):
                self._owners[owner] = [
                    (name, buffer, buffer.detach().clone())
                    for name, buffer in owner._buffers.items()
                    if buffer is not None and not is_lazy(buffer)
                ]
            if owner._modules:
                found.extend(owner._modules.values())

    def __len__(self) -> int:
        """How many of the modules have buffers."""
        return len(self._owners)

    def again(self) -> Buffers:
        """The same modules as they are by now."""
        return Buffers(*self._owners)

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Inside, they are as they were; then as they are now. For a pass that repeats another bit for bit."""
        now = self.again()
        self.restore()
        with now:
            yield

    def restore(self) -> None:
        """Put them back, in place."""
        if self._owners:
            with torch.no_grad():
                self._restore()

    def _restore(self) -> None:
        for owner, kept in self._owners.items():
            for name, buffer, value in kept:
                if owner._buffers[name] is not buffer:
                    owner._buffers[name] = buffer
                buffer.copy_(value)  # whatever their versions are: batch norm writes without a new one

    @torch.no_grad()
    def restore_but_for_statistics(self, weight: float) -> None:
        """Put them back, but batch norm's running statistics: a mean of both, where those of now have this weight."""
        now = {
            owner: [owner._buffers[name] for name, *_ in kept if name != "num_batches_tracked"]
            for owner, kept in self._owners.items()
            if isinstance(owner, _BatchNorm)
        }
        values = {owner: [value.clone() for value in those if value is not None] for owner, those in now.items()}
        self.restore()
        for owner, those in values.items():
            names = [name for name, *_ in self._owners[owner] if name != "num_batches_tracked"]
            for name, value in zip(names, those, strict=True):
                owner._buffers[name].lerp_(value, weight)  # type: ignore[union-attr]  # it was taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()


class Called:
    """Takes the buffers of every module that is called inside, by whatever function, before its first call."""

    def __init__(self) -> None:
        self._following: list[Buffers] = []

    def follow(self) -> Buffers:
        """Those of modules that are called from now on."""
        self._following.append(Buffers())
        return self._following[-1]

    def __enter__(self) -> Self:
        thread = threading.get_ident()

        def take(module: nn.Module, _: Any) -> None:
            if not torch.compiler.is_compiling() and threading.get_ident() == thread:
                for buffers in self._following:
                    buffers.take(module)

        self._hook = nn.modules.module.register_module_forward_pre_hook(take)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()
