"""The window in Lightning's loop: filled, pushed after each step, in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import mow

lightning = pytest.importorskip("lightning")
from mow.adapters.lightning import WindowCallback  # noqa: E402  # only where there is Lightning

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own

N, DIM = 6, 2


class Encoder(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(4, DIM)
        self.window = mow.MovingWindow(N, DIM)
        self.distance = mow.CramerWold()
        self.present: list[int] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.present.append(len(self.window))
        return self.distance(self.encoder(batch[0]), self.window)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(x: Tensor, epochs: int, *, k: int = 2, resume: Path | None = None, own: bool = True, **options):
    """The module and the trainer after so many epochs; the window is the module's own, or another."""
    model = Encoder()
    window = model.window if own else mow.MovingWindow(N, DIM)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[WindowCallback(window, lambda batch: model.encoder(batch[0]), **options)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(torch.utils.data.TensorDataset(x), batch_size=k), ckpt_path=resume)
    return model, trainer


def by_hand(x: Tensor, epochs: int, k: int = 2) -> Encoder:
    model = Encoder()
    optimizer = model.configure_optimizers()
    with torch.no_grad():
        model.window.fill(model.encoder(x[: N - k]))
    for _ in range(epochs):
        for batch in x.split(k):
            optimizer.zero_grad()
            model.distance(model.encoder(batch), model.window).backward()
            optimizer.step()
            with torch.no_grad():
                model.window.push(model.encoder(batch))
    return model


def test_it_is_the_papers_loop(randn) -> None:
    x = randn(10, 4, dtype=torch.float32)
    model, _ = fit(x, epochs=2)
    expected = by_hand(x, epochs=2).state_dict()
    assert model.present == [4] + [6] * 9
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_a_checkpoint_holds_the_window_and_goes_on(randn, tmp_path: Path) -> None:
    x = randn(10, 4, dtype=torch.float32)
    _, trainer = fit(x, epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed, _ = fit(x, epochs=3, resume=tmp_path / "two.ckpt")
    whole, _ = fit(x, epochs=3)
    assert resumed.present[0] == N
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("k", "warm_up", "present"), [(2, False, [0, 2, 4, 6, 6]), (5, True, [1, 6]), (6, True, [0, 6])]
)
def test_what_is_there_before_each_step(randn, k: int, warm_up: bool, present: list[int]) -> None:
    model, _ = fit(randn(10, 4, dtype=torch.float32), epochs=1, k=k, warm_up=warm_up)
    assert model.present == present


def test_a_window_outside_the_module_is_refused(randn) -> None:
    with pytest.raises(ValueError, match="window is not part of the LightningModule"):
        fit(randn(4, 4, dtype=torch.float32), epochs=1, own=False)
