"""A moving window in a training loop of Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch
from torch import Tensor

from mow.naming import named
from mow.training.buffers import Buffers
from mow.training.nonfinite import FiniteRows
from mow.window.window import MovingWindow


class WindowCallback(lightning.Callback):
    """Keeps the window of a LightningModule: fills it before the first step, pushes the new latents after each.

        >>> from mow.adapters.lightning import WindowCallback
        >>> callback = WindowCallback(window, encode=lambda batch: encoder(batch[0]))

    The module measures its distance over the window in `training_step`, and has the window as a submodule
    (`self.window = mow.MovingWindow(...)`), so that Lightning moves it, saves it in every checkpoint and restores it.

    Args:
        window: the module's.
        encode: from a batch, as `training_step` gets it, to its latents [k, D]. It is called without gradients, under
            the trainer's precision, and after the optimiser's step: the paper re-encodes. What it writes into buffers
            of the module, e.g. batch norm's statistics, is undone.
        warm_up: begin by filling an empty window with the latents of n-k elements under the initial weights, step 1 of
            the paper; else it grows from empty.

        on_nonfinite: what becomes of a latent that is NaN or infinite in the window's type: "stop" raises a
            FloatingPointError and leaves the window as it was, "skip" leaves it out and counts it in `rows_left_out`,
            "ignore" does not look, for which a GPU would have to be waited.

    Raises:
        ValueError: another on_nonfinite; when training begins, if the window is not part of the module; or if an empty
            one is to be filled and `training_step` takes the loader's iterator, whose batches Lightning does not see.
    """

    def __init__(
        self,
        window: MovingWindow,
        encode: Callable[[Any], Tensor],
        *,
        warm_up: bool = True,
        on_nonfinite: str = "stop",
    ) -> None:
        self.window, self.encode, self.warm_up = window, encode, warm_up
        self._finite = FiniteRows(on_nonfinite)

    def __repr__(self) -> str:
        return named(self, window=self.window, warm_up=self.warm_up, rows_left_out=self.rows_left_out)

    @property
    def rows_left_out(self) -> int:
        """How many latents did not enter the window, since they were not finite."""
        return self._finite.left_out

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's checkpoints keep of it."""
        return {"rows_left_out": self.rows_left_out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._finite.left_out = state_dict.get("rows_left_out", 0)

    @torch.no_grad()
    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Step 1 of the paper, where there are no latents yet."""
        if not any(module is self.window for module in pl_module.modules()):
            raise ValueError("window is not part of the LightningModule; it must be, for checkpoints to hold it")
        if not self.warm_up or len(self.window):
            return
        found: list[Tensor] = []
        wanted = 0
        for batch in _first_batches(trainer, pl_module):
            found.append(self._encoded(trainer, pl_module, batch))
            wanted = self.window.n - len(found[0])
            if sum(map(len, found)) >= wanted:
                break
        if wanted > 0:
            self._finite.fill(torch.cat(found)[:wanted], self.window)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step's elements, encoded again, into the window."""
        self._finite.push(self._encoded(trainer, pl_module, batch), self.window)

    def _encoded(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any) -> Tensor:
        with trainer.precision_plugin.train_step_context(), Buffers(pl_module):
            return self.encode(batch)


def _first_batches(trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> Iterator[Any]:
    """The batches of the first epoch on the path of Lightning's own loop, which then begins with the first again.

    They come from the loop's fetcher, which knows of several loaders, how they are combined and limits, and go through
    the precision plug-in and the transfer hooks as in `lightning.pytorch.loops.training_epoch_loop`.
    """
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None  # training begins
    try:
        for fetched in iter(lambda: next(fetcher, None), None):
            if not isinstance(fetched, tuple):
                raise ValueError("warm_up is True and training_step takes the loader's iterator; it must be False")
            batch = trainer.precision_plugin.convert_input(fetched[0])
            batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
            yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    finally:
        iter(fetcher)  # begins anew
