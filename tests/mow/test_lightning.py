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


class Scaled(Encoder):
    """Its batches are changed on their way to the device, and its data come from several loaders or are limited."""

    def on_before_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return [part + 1 for part in batch]

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return [part / 3 for part in batch]


class Several(Encoder):
    """Two loaders, of which it compares the second."""

    def training_step(self, batch: dict[str, list[Tensor]], index: int) -> Tensor:
        return super().training_step(batch["b"], index)


class OfAnIterator(Encoder):
    def training_step(self, dataloader_iter) -> Tensor:
        return super().training_step(next(dataloader_iter)[0], 0)


def fit_on(model: Encoder, loader, batch_of=lambda batch: batch[0], *callbacks, **options) -> None:
    callback = WindowCallback(model.window, lambda batch: model.encoder(batch_of(batch)))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback, *callbacks],
        enable_model_summary=False,
        **quiet,
        **options,
    )
    trainer.fit(model, loader)


def first_step(model: Encoder, loader, batch_of=lambda batch: batch[0], **options) -> tuple[Tensor, list[Tensor]]:
    """What the window holds before the first step, and the batches of the epoch as training_step gets them."""
    held, batches = [], []

    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, index: int) -> None:
            held.append(model.window.latents.clone())
            batches.append(batch_of(batch).clone())

    fit_on(model, loader, batch_of, Watch(), **options)
    assert torch.isfinite(model.window.latents).all()
    return held[0][: model.present[0]], batches


def loader_of(x: Tensor, k: int = 2, **options) -> DataLoader:
    return DataLoader(torch.utils.data.TensorDataset(x), batch_size=k, **options)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("64-true", torch.float64),
        ("bf16-true", torch.bfloat16),
        ("16-true", torch.float16),
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
    ],
)
def test_the_warm_up_is_under_the_trainers_precision(randn, precision: str, dtype: torch.dtype) -> None:
    model, x = Encoder(), randn(10, 4, dtype=torch.float32)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.1)  # Adam's eps is 0 in float16
    encoder = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    held, batches = first_step(model, loader_of(x), precision=precision)
    assert held.dtype == dtype and len(held) == 4 and len(batches) == 5
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        expected = torch.func.functional_call(
            nn.Linear(4, DIM), {name: value.to(dtype) for name, value in encoder.items()}, x[:4].to(dtype)
        )
    torch.testing.assert_close(held, expected.to(dtype))


def test_the_warm_up_goes_through_the_transfer_hooks(randn) -> None:
    model, x = Scaled(), randn(10, 4, dtype=torch.float32)
    with torch.no_grad():
        expected = model.encoder((x[:4] + 1) / 3)
    held, batches = first_step(model, loader_of(x))
    torch.testing.assert_close(held, expected)
    torch.testing.assert_close(torch.cat(batches), (x + 1) / 3)


@pytest.mark.parametrize("mode", ["min_size", "max_size_cycle"])
def test_the_warm_up_takes_several_loaders_as_the_trainer_combines_them(randn, mode: str) -> None:
    from lightning.pytorch.utilities import CombinedLoader

    model, x, other = Several(), randn(6, 4, dtype=torch.float32), randn(10, 4, dtype=torch.float32)
    with torch.no_grad():
        expected = model.encoder(x[:4])
    loaders = CombinedLoader({"a": loader_of(other), "b": loader_of(x)}, mode)
    held, batches = first_step(model, loaders, lambda batch: batch["b"][0])
    torch.testing.assert_close(held, expected)
    assert len(batches) == (3 if mode == "min_size" else 5) and torch.equal(torch.cat(batches[:3]), x)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_first_epoch_is_whole_after_the_warm_up(randn, workers: int) -> None:
    x = randn(10, 4, dtype=torch.float32)
    loader = loader_of(x, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    _, batches = first_step(Encoder(), loader)
    assert sorted(torch.cat(batches).tolist()) == sorted(x.tolist())


def test_the_warm_up_of_a_loader_without_length_and_of_few_batches(randn) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(row,) for row in x])

    x = randn(10, 4, dtype=torch.float32)
    held, batches = first_step(Encoder(), DataLoader(Stream(), batch_size=2))
    assert len(held) == 4 and torch.equal(torch.cat(batches), x)
    held, batches = first_step(Encoder(), loader_of(x), limit_train_batches=1)
    assert len(held) == 2 and torch.equal(torch.cat(batches), x[:2])
    x = x[:0]
    model = Encoder()
    fit_on(model, DataLoader(Stream(), batch_size=2))
    assert model.present == [] and len(model.window) == 0


def test_a_loop_whose_batches_lightning_does_not_see_is_refused() -> None:
    with pytest.raises(ValueError, match="warm_up is True and training_step takes the loader's iterator"):
        first_step(OfAnIterator(), loader_of(torch.zeros(10, 4)))


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


class Overflowing(nn.Linear):
    """Where no gradient is asked for: in the passes for the window alone."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z if torch.is_grad_enabled() else torch.cat([z[:1] / 0, z[1:]])


class Overflows(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Overflowing(4, DIM)


@pytest.mark.parametrize("warm_up", [False, True])
def test_no_latent_that_is_not_finite_enters(monkeypatch: pytest.MonkeyPatch, warm_up: bool) -> None:
    monkeypatch.setitem(globals(), "Encoder", Overflows)
    model, trainer = fit(torch.randn(8, 4), 2, warm_up=warm_up, on_nonfinite="skip")
    (callback,) = (one for one in trainer.callbacks if isinstance(one, WindowCallback))
    assert callback.rows_left_out == 8 + 2 * warm_up and callback.state_dict() == {"rows_left_out": 8 + 2 * warm_up}
    assert len(model.window) == N and model.window.latents.isfinite().all()
    with pytest.raises(FloatingPointError, match="of . latents for the window are not finite"):
        fit(torch.randn(8, 4), 1, warm_up=warm_up)
    with pytest.raises(ValueError, match="on_nonfinite is 'hope'"):
        fit(torch.randn(8, 4), 1, on_nonfinite="hope")


class Normalised(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, DIM), nn.BatchNorm1d(DIM))


def test_the_callbacks_passes_leave_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Encoder", Normalised)
    model, _ = fit(torch.randn(8, 4), 2)
    assert model.encoder[1].num_batches_tracked == 8 and len(model.window) == N
