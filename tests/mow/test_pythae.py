"""pythae's models with our MMD: the losses and gradients of its own, in its own trainer, saved for its own loader."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mow

models = pytest.importorskip("pythae.models")
from mow.adapters import pythae as ours  # noqa: E402  # only where there is pythae

NAMES = ["WAE_MMD", "INFOVAE_MMD"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("pythae").setLevel(logging.ERROR)


def model(module, name: str, options: dict | None = None, **more):
    torch.manual_seed(0)
    config = getattr(models, f"{name}_Config")(input_dim=(1, 4, 4), latent_dim=3, **(options or {}))
    return getattr(module, name)(config, **more)


def losses_and_gradients(one, x: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)  # of the prior sample
    output = one(models.base.base_utils.ModelOutput(data=x))
    output.loss.backward()
    values = {key: output[key] for key in ("loss", "recon_loss", "reg_loss", "mmd_loss") if key in output}
    return {**values, **{key: parameter.grad for key, parameter in one.named_parameters()}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_choice": "rbf", "kernel_bandwidth": 1.5},
        {"kernel_bandwidth": 0.7, "scales": [0.5, 2.0]},
        {"scales": None},
    ],
)
def test_losses_and_gradients_are_its_own(randn, name: str, options: dict) -> None:
    x = randn(5, 1, 4, 4, dtype=torch.float32)
    found = losses_and_gradients(model(ours, name, options), x)
    torch.testing.assert_close(found, losses_and_gradients(model(models, name, options), x))


@pytest.mark.parametrize(("name", "option"), [("WAE_MMD", "reconstruction_loss_scale"), ("INFOVAE_MMD", "alpha")])
def test_the_weights_are_its_own(randn, name: str, option: str) -> None:
    x = randn(5, 1, 4, 4, dtype=torch.float32)
    found = losses_and_gradients(model(ours, name, {option: 0.3}), x)
    torch.testing.assert_close(found, losses_and_gradients(model(models, name, {option: 0.3}), x))


def test_the_bernoulli_error_is_its_own(randn) -> None:
    x, options = randn(5, 1, 4, 4, dtype=torch.float32).sigmoid(), {"reconstruction_loss": "bce"}
    found = losses_and_gradients(model(ours, "INFOVAE_MMD", options), x)
    torch.testing.assert_close(found, losses_and_gradients(model(models, "INFOVAE_MMD", options), x))


@pytest.mark.parametrize("name", NAMES)
def test_the_closed_form_is_the_mean_over_its_draws(randn, name: str) -> None:
    x = randn(64, 1, 4, 4, dtype=torch.float32)
    one, own = model(ours, name, closed_form=True), model(models, name)
    z = randn(64, 3, dtype=torch.float32)
    drawn = torch.stack([ours.mk.mmd(z, None, torch.randn(64, 3)) for _ in range(400)])
    exact = one._mmd(z, x)
    assert abs(exact - drawn.mean()) < 4 * drawn.std() / 20 and float(own.scales[0]) == 0.1


@pytest.mark.parametrize("name", NAMES)
def test_one_picture_a_step_in_its_own_trainer(randn, name: str, tmp_path: Path) -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    window = mow.MovingWindow(8, 3)
    one = model(ours, name, window=window)
    options = BaseTrainerConfig(str(tmp_path), num_epochs=1, per_device_train_batch_size=1, no_cuda=True, seed=0)
    dataset = BaseDataset(randn(10, 1, 4, 4, dtype=torch.float32), torch.zeros(10))
    trainer = BaseTrainer(one, dataset, dataset, training_config=options)
    trainer.prepare_training()
    assert trainer.train_step(1) < float("inf") and len(window) == 8
    before = window.latents.clone()
    assert trainer.eval_step(1) < float("inf") and torch.equal(window.latents, before)  # it learns nothing there


def test_its_own_loader_reads_what_ours_saves(randn, tmp_path: Path) -> None:
    one = model(ours, "WAE_MMD")
    one.save(str(tmp_path))
    loaded = models.AutoModel.load_from_folder(str(tmp_path))
    assert type(loaded) is models.WAE_MMD
    for name, value in one.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


class Flat(models.nn.BaseEncoder):
    """An encoder of the user's own, which pythae saves in a file of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 3)

    def forward(self, x: Tensor) -> object:
        return models.base.base_utils.ModelOutput(
            embedding=self.layer(x.flatten(1)), log_covariance=-x.flatten(1)[:, :3]
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [0, 3, 12], ids=["empty", "growing", "full"])
def test_a_model_with_a_window_comes_back_whole(randn, name: str, steps: int, tmp_path: Path) -> None:
    one = model(ours, name, window=mow.MovingWindow(8, 3), encoder=Flat() if name == "WAE_MMD" else None)
    for x in randn(steps, 1, 1, 4, 4, dtype=torch.float32):
        losses_and_gradients(one, x)
    one.save(str(tmp_path))
    loaded = getattr(ours, name).load_from_folder(str(tmp_path))
    assert len(loaded.window) == min(8, steps)
    for key, value in one.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    x = randn(1, 1, 4, 4, dtype=torch.float32)
    assert torch.equal(losses_and_gradients(loaded, x)["mmd_loss"], losses_and_gradients(one, x)["mmd_loss"])
    assert torch.equal(loaded.window.latents, one.window.latents)  # and both have gone on
    with pytest.raises(RuntimeError, match=r"Unexpected key.*window\.latents"):
        getattr(models, name).load_from_folder(str(tmp_path))


def test_a_window_is_of_the_type_of_the_model_that_loads_it(randn) -> None:
    state = model(ours, "WAE_MMD", window=mow.MovingWindow(8, 3)).state_dict()
    loaded = model(ours, "WAE_MMD").double()
    loaded.load_state_dict(state)
    losses_and_gradients(loaded, randn(1, 1, 4, 4))
    assert len(loaded.window) == 1 and loaded.window.latents.dtype == torch.float64


def test_the_final_model_of_its_own_trainer_comes_back(randn, tmp_path: Path) -> None:
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    one = model(ours, "WAE_MMD", window=mow.MovingWindow(8, 3))
    options = BaseTrainerConfig(str(tmp_path), num_epochs=1, per_device_train_batch_size=1, no_cuda=True)
    TrainingPipeline(model=one, training_config=options)(randn(10, 1, 4, 4, dtype=torch.float32).sigmoid())
    (folder,) = tmp_path.glob("*/final_model")
    loaded = ours.WAE_MMD.load_from_folder(str(folder))
    assert len(loaded.window) == 8 and loaded.window.latents.abs().min() > 0


@pytest.mark.parametrize("closed_form", [None, False, True])
def test_how_the_prior_is_taken_comes_back(closed_form: bool | None, tmp_path: Path) -> None:
    model(ours, "WAE_MMD", closed_form=closed_form).save(str(tmp_path))
    assert ours.WAE_MMD.load_from_folder(str(tmp_path)).closed_form is closed_form
    assert type(models.AutoModel.load_from_folder(str(tmp_path))) is models.WAE_MMD


def test_a_folder_of_its_own_model_is_read(tmp_path: Path) -> None:
    own = model(models, "WAE_MMD")
    own.save(str(tmp_path))
    loaded = ours.WAE_MMD.load_from_folder(str(tmp_path))
    assert loaded.window is None and loaded.state_dict().keys() == own.state_dict().keys()


def test_weights_with_a_window_do_not_go_into_a_model_that_draws_its_prior() -> None:
    state = model(ours, "WAE_MMD", window=mow.MovingWindow(8, 3)).state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*window\.latents"):
        model(ours, "WAE_MMD", closed_form=False).load_state_dict(state)


def test_a_batch_of_one_without_a_window_is_refused(randn) -> None:
    with pytest.raises(ValueError, match="unbiased"):
        losses_and_gradients(model(ours, "WAE_MMD"), randn(1, 1, 4, 4, dtype=torch.float32))


def test_a_window_takes_the_closed_form() -> None:
    with pytest.raises(ValueError, match="closed_form is False and there is a window"):
        model(ours, "WAE_MMD", window=mow.MovingWindow(8, 3), closed_form=False)


def test_the_study_measures_and_tabulates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studies.pythae import __main__ as study
    from studies.pythae import report, training

    monkeypatch.setattr(training, "BATCHES", (20,))
    monkeypatch.setattr(training, "MODELS", ("WAE_MMD",))
    monkeypatch.setattr(logging, "disable", lambda level: None)
    study.run(epochs=2, seeds=2, pictures=40, out=tmp_path)
    (page := tmp_path / report.PAGE).parent.mkdir()
    page.write_text("<!-- pythae:start -->\n<!-- pythae:end -->\n")
    report.write(tmp_path, tmp_path)
    own, drawn, closed = (line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| WAE"))
    assert own[1] == drawn[1] and float(drawn[2]) < 1e-5 and 0 < float(closed[2]) < 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_no_latent_that_is_not_finite_enters_the_window(randn, name: str) -> None:
    x = randn(5, 1, 4, 4, dtype=torch.float32)
    x[1] = torch.nan
    data = models.base.base_utils.ModelOutput(data=x)
    stopping = model(ours, name, window=mow.MovingWindow(8, 3))
    with pytest.raises(FloatingPointError, match="1 of 5 latents for the window are not finite"):
        stopping(data)
    assert len(stopping.window) == 0
    skipping = model(ours, name, window=mow.MovingWindow(8, 3), on_nonfinite="skip")
    skipping(data)
    assert (len(skipping.window), skipping.rows_left_out) == (4, 1) and skipping.window.newest(4).isfinite().all()
    ignoring = model(ours, name, window=mow.MovingWindow(8, 3), on_nonfinite="ignore")
    ignoring(data)
    assert len(ignoring.window) == 5 and ignoring.window.newest(5).isnan().any()
    with pytest.raises(ValueError, match="on_nonfinite is 'hope'; it must be one of 'stop', 'skip', 'ignore'"):
        model(ours, name, on_nonfinite="hope")


@pytest.mark.parametrize("name", NAMES)
def test_a_half_window_gets_no_row_that_only_float32_holds(name: str) -> None:
    one = model(ours, name, window=mow.MovingWindow(8, 3, dtype=torch.float16), on_nonfinite="skip")
    one._finite.push(torch.tensor([[1e6, 0, 0], [1, 2, 3.0]]), one.window)
    assert one.window.newest(1).tolist() == [[1, 2, 3]] and len(one.window) == one.rows_left_out == 1
