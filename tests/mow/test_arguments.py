"""Arguments as people have them: what has one meaning is taken, the rest is an error that says what to write."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

import mow
import mow_kernels as mk
from mow.adapters.geomloss import SamplesLoss
from mow.adapters.mmd_gan import mix_rbf_mmd2
from mow.app.options import Options
from mow.app.trained import report
from mow.neighbours.coreset import CoresetPrior
from mow.neighbours.gan import GANTrainer
from mow.training.precision import Frugal

EIGHT, TWO = np.int64(8), np.int32(2)


def trainer(encoder: nn.Module | None = None, decoder: nn.Module | None = None, **options: Any) -> mow.Trainer:
    torch.manual_seed(0)
    encoder, decoder = encoder or nn.Linear(5, 2), decoder or nn.Linear(2, 5)
    return mow.Trainer(encoder, decoder, mow.CramerWold(), mow.MovingWindow(8, 2), **{"k": 2, **options})


def scale_of(rows: Any, pieces: Any) -> None:
    model = nn.Linear(2, 1)
    scale = mow.GradientNoiseScale(model.parameters())
    mow.accumulate(lambda x: model(x).mean(), torch.randn(4, 2), micro_batch=2)
    scale.update(rows=rows, micro_batch=pieces)


INTEGERS: dict[str, Callable[[Any], Any]] = {
    "n": lambda n: mow.MovingWindow(n, n),
    "k": lambda k: trainer(k=k),
    "refresh": lambda refresh: trainer(refresh=refresh),
    "keep": lambda keep: mow.SlicedWasserstein(keep=keep),
    "directions": lambda count: mow.SlicedWasserstein(directions=count)(torch.randn(4, 3)),
    "micro_batch": lambda rows: mow.accumulate(nn.Linear(3, 1), torch.randn(1, 3), micro_batch=rows) and None,
    "batch_size": lambda size: list(mow.CoresetSampler(torch.randn(20, 3), size)),
    "factor": lambda factor: CoresetPrior(factor=factor).sample(2, torch.empty(1, 2)),
    "dim": lambda dim: mow.random_projection(torch.randn(20, 9), dim),
    "resamples": lambda count: mow.fit_critical_batch([1, 2, 4], [9, 5, 3], resamples=count),
    "seed": lambda seed: mow.ShuffledStream(torch.zeros(3, 1), seed),
    "seed of a GAN": lambda seed: GANTrainer(nn.Linear(2, 2), nn.Linear(2, 1), 2, seed=seed),
    "history": lambda k: mow.MovingWindow(16, 2).history(k),
    "running": lambda n: mk.RunningSums(mk.mmd, n, 3),
    "rows": lambda rows: scale_of(rows // 2 if not isinstance(rows, bool | float) else rows, 2),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_numpys_integers_are_integers(name: str) -> None:
    if name == "micro_batch":
        model = nn.Linear(3, 1)
        mow.accumulate(lambda x: model(x).mean(), torch.randn(9, 3), micro_batch=EIGHT, floor=TWO)
        mow.accumulate(lambda x: model(x).sum(), torch.randn(9, 3), reduction="sum", count=EIGHT)
        return
    INTEGERS[name](EIGHT)


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), 8.0, np.float64(8), "8"], ids=repr)
@pytest.mark.parametrize("name", [name for name in INTEGERS if name not in ("factor", "running")])
def test_what_is_no_integer_is_none(name: str, value: Any) -> None:
    if name == "rows" and not isinstance(value, bool | float):
        pytest.skip("the rows are counted in the test")
    if name == "directions" and isinstance(value, Tensor):
        pytest.skip("these are directions")
    with pytest.raises(TypeError, match="it must be an integer"):
        INTEGERS[name](value)


def test_what_is_taken_over_is_plain() -> None:
    training = trainer(k=TWO, weight=np.float32(2), refresh=EIGHT)
    assert [type(each) for each in (training.k, training.weight, training.refresh)] == [int, float, int]
    window = mow.MovingWindow(EIGHT, TWO)
    assert type(window.n) is type(window.dim) is int
    assert mow.CramerWold(gamma=np.float32(0.5))(torch.ones(2, 2)) == mow.CramerWold(gamma=0.5)(torch.ones(2, 2))
    options = Options(n=EIGHT, k=TWO, lr=np.float64(1e-3), seed=np.int64(3)).resolved()
    assert {type(value) for value in vars(options).values()} <= {int, float, str, bool, type(None)}
    gan = GANTrainer(nn.Linear(2, 2), nn.Linear(2, 1), TWO, lr_generator=np.float32(1e-3), penalty=np.float64(1))
    gan.step(torch.randn(3, 2))


@pytest.mark.parametrize("weight", ["1", None, True])
def test_a_weight_is_a_number(weight: Any) -> None:
    with pytest.raises(TypeError, match="weight is .*; it must be a number >= 0"):
        trainer(weight=weight)


# Pictures


class Items:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


X = torch.rand(12, 5, generator=torch.Generator().manual_seed(3))
SETS: dict[str, Callable[[], Any]] = {
    "an array": lambda: X.numpy(),
    "an array of float64": lambda: X.double().numpy(),
    "float64": lambda: X.double(),
    "arrays": lambda: [row.numpy() for row in X],
    "(picture, label)": lambda: Items([(row, 3) for row in X]),
    "[array, label]": lambda: Items([[row.numpy(), 3] for row in X]),
    "a data set": lambda: TensorDataset(X, torch.arange(12)),
    "a loader": lambda: DataLoader(TensorDataset(X, torch.arange(12)), batch_size=4),
    "a loader that shuffles": lambda: DataLoader(TensorDataset(X), batch_size=7, shuffle=True),
    "a loader without batches": lambda: DataLoader(TensorDataset(X), batch_size=None),
}


@pytest.mark.parametrize("name", SETS)
def test_pictures_of_one_meaning(name: str) -> None:
    expected, found = trainer(), trainer()
    expected.fit(X, 4)
    found.fit(SETS[name](), 4)
    torch.testing.assert_close(found.window.latents, expected.window.latents)


@pytest.mark.parametrize("form", [lambda x: x, lambda x: x.numpy(), lambda x: TensorDataset(x), DataLoader])
def test_uint8_is_scaled(form: Callable[[Tensor], Any]) -> None:
    pictures = (255 * X).to(torch.uint8)
    expected, found = trainer(), trainer()
    expected.fit(pictures.float() / 255, 4)
    found.fit(form(pictures), 4)
    assert torch.equal(found.window.latents, expected.window.latents)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float16, torch.float64])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("array", [False, True])
def test_a_step_takes_them_too(dtype: torch.dtype, double: bool, array: bool) -> None:
    training = trainer()
    if double:  # after it was made
        nn.ModuleList([training.encoder, training.decoder, training.window]).double()
    x = (255 * X[:2]).to(dtype) if dtype == torch.uint8 else X[:2].to(dtype)
    training.step(x.numpy() if array else x)
    gan = GANTrainer(nn.Linear(2, 5), nn.Linear(5, 1), 2)
    gan.step(x.numpy() if array else x)
    assert training.steps_done == 1


def test_a_mapped_file_is_read_by_the_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    expected, found = (mow.ShuffledStream(x) for x in (X, np.load(tmp_path / "x.npy", mmap_mode="r")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(found.take(5), expected.take(5))


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter(X)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (Endless(), r"pictures is Endless; it must .* call trainer.step\(x\) for each batch"),
        (DataLoader(Endless()), r"pictures is Endless; it must .* call trainer.step\(x\) for each batch"),
        (iter(X), "pictures is generator|pictures is .*iterator"),
        ("photos", "pictures is str"),
        ({"x": X}, "pictures is dict"),
        (
            DataLoader(TensorDataset(X), sampler=WeightedRandomSampler([1.0] * 12, 12)),
            "pictures is a DataLoader with a sampler or a collate_fn of its own; .* loader.dataset",
        ),
        (DataLoader(TensorDataset(X), collate_fn=lambda items: items), "a DataLoader with a sampler or a collate_fn"),
        (
            Items([{"image": row, "label": 3} for row in X]),
            r"holds a dict of 'image', 'label'; .* e.g. \[item\['image'\] for item in pictures\]",
        ),
        (Items(["a.png"] * 3), "pictures holds a str; an item must be a tensor or an array"),
        (
            torch.ones(12, 5, dtype=torch.int64),
            r"pictures is torch.int64; it must be floating-point, uint8 \(0 to 255\)",
        ),
        (np.ones((12, 5), dtype=np.int32), "pictures is torch.int32"),
    ],
)
def test_pictures_of_no_or_several_meanings(pictures: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trainer().fit(pictures, 4)


def test_a_batch_with_labels_is_told_how_to_be_passed() -> None:
    training = trainer()
    for batch in ([X[:2], torch.zeros(2)], (X[:2], torch.zeros(2)), {"image": X[:2]}):
        with pytest.raises(TypeError, match=r"x is (list|tuple|dict); .*pass the part with the elements"):
            training.step(batch)
    assert training.steps_done == 0


# Networks


class Gives(nn.Module):
    def __init__(self, form: Callable[[Tensor], Any], width: int = 5, to: int = 2) -> None:
        super().__init__()
        self.linear, self.form = nn.Linear(width, to), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.linear(x))


FORMS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "(mu, logvar)": (lambda z: (z, z), "a tuple of 0, 1; it must give latents"),
    "a dict": (lambda z: {"mu": z, "logvar": z}, "a dict of 'mu', 'logvar'; it must give latents"),
    "[k, C, H, W]": (lambda z: z[:, :, None, None], r"shape \[2, 2, 1, 1\]; it must give latents"),
}


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_the_line_that_the_error_shows_works(name: str, warm_up: bool) -> None:
    form, message = FORMS[name]
    encoder: nn.Module = Gives(form)
    with pytest.raises(
        (TypeError, ValueError), match=message.replace("[2,", "[[26],") if warm_up else message
    ) as error:
        trainer(encoder).fit(X, 3, warm_up=warm_up)
    scope = {"encoder": encoder, "torch": torch}
    exec(str(error.value).partition("by the line ")[2], scope)
    training = trainer(scope["encoder"])
    training.fit(X, 3, warm_up=warm_up)
    assert training.steps_done == 3


@pytest.mark.parametrize("form", [lambda x: (x, x), lambda x: {"x": x}])
def test_a_decoder_of_several_outputs(form: Callable[[Tensor], Any]) -> None:
    decoder = Gives(form, 2, 5)
    with pytest.raises(TypeError, match="the decoder gives a (tuple|dict) of .*; it must give a tensor") as error:
        trainer(decoder=decoder).fit(X, 3)
    exec(str(error.value).partition("by the line ")[2], {"decoder": decoder})
    trainer(decoder=decoder).fit(X, 3)


def test_latents_of_one_axis() -> None:
    with pytest.raises(ValueError, match=r"the encoder gives shape \[2\]; it must give latents, a tensor \[k, D\]$"):
        trainer(Gives(lambda z: z[:, 0])).fit(X, 3, warm_up=False)


@pytest.mark.parametrize(
    "name, value, was",
    [
        ("encoder", nn.Linear, "the class Linear"),
        ("decoder", len, "of type builtin_function_or_method"),
        ("distance", mow.MMD, "the class MMD"),
        ("distance", mow.MovingWindow(4, 2), "of type MovingWindow"),
        ("window", mow.MovingWindow, "the class MovingWindow"),
        ("window", 64, "of type int"),
        ("optimizer", torch.optim.SGD([torch.zeros(1)]), "of type SGD"),
        ("scheduler", "cosine", "of type str"),
    ],
)
def test_a_trainer_is_made_of_objects_not_classes_or_names(name: str, value: Any, was: str) -> None:
    """In the other's place, too: where it was put, not at the first step."""
    parts = {
        "encoder": nn.Linear(3, 2),
        "decoder": nn.Linear(2, 3),
        "distance": mow.MMD(),
        "window": mow.MovingWindow(4, 2),
        name: value,
    }
    with pytest.raises(TypeError, match=f"^{name} is {was}; it must be (an object|None or a function) of "):
        mow.Trainer(**parts)


def test_latents_of_another_width_are_told_beside_the_window_s() -> None:
    for use in (lambda each: each.step(torch.zeros(1, 3)), lambda each: each.fit(torch.zeros(9, 3), steps=1)):
        with pytest.raises(ValueError, match=r"z has shape \[\d, 2\]; it must be \[k, 5\], k >= 1 and dim = 5"):
            use(mow.Trainer(nn.Linear(3, 2), nn.Linear(2, 3), mow.MMD(), mow.MovingWindow(4, 5)))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a class for a generator": (lambda: GANTrainer(nn.Linear, nn.Linear(2, 1), 2), "generator is the class Linear"),
    "no discriminator": (lambda: GANTrainer(nn.Linear(2, 2), len, 2), "discriminator is of type builtin"),
    "an optimiser's name": (
        lambda: GANTrainer(nn.Linear(2, 2), nn.Linear(2, 1), 2, optimizer="adam"),
        "optimizer is of type str",
    ),
    "no module": (lambda: Frugal("bf16"), "module is of type str"),
    "a dtype's name": (lambda: mow.MovingWindow(8, 2, dtype="float32"), "dtype is 'float32'"),
    "a window of integers": (lambda: mow.MovingWindow(8, 2, dtype=torch.int64), "dtype is torch.int64"),
    "a word for log": (lambda: mow.CramerWold(log="no"), "log is 'no'; it must be True or False"),
    "an unknown kernel": (lambda: mow.MMD(kernel="cosine"), "kernel is 'cosine'"),
    "a scale": (lambda: mow.MMD(scales=3), "scales is 3"),
    "an option of another kernel": (lambda: mow.MMD(degree=2), "degree is 2 and kernel 'imq'"),
    "an option of none": (lambda: mow.MMD(width=2), "width is no option of mmd"),
    "no closed form": (lambda: mow.MMD(kernel="laplacian"), "kernel is 'laplacian'"),
    "a gamma": (lambda: mow.CramerWold(gamma=0), "gamma is 0"),
    "flat directions": (lambda: mow.SlicedWasserstein(directions=torch.zeros(3)), r"directions has shape \[3\]"),
    "a width that a distance has not": (
        lambda: mow.Trainer(nn.Linear(3, 1), nn.Linear(1, 3), mow.CramerWold(phi="asymptotic"), mow.MovingWindow(8, 1)),
        "phi is 'asymptotic' and current has D = 1",
    ),
    "a switch for a span": (lambda: trainer(adaptive=True), "adaptive is of type bool"),
    "a switch for a correction": (lambda: trainer(correction=True), "correction is of type bool"),
    "no scaler": (lambda: trainer(scaler=True), "scaler is of type bool"),
    "no exchange": (lambda: trainer(exchange=2), "exchange is of type int"),
    **{
        name: (lambda name=name: trainer(**{name: "no"}), f"{name} is 'no'; it must be True or False")
        for name in ("root", "reencode", "compile", "cuda_graph")
    },
    "steps": (lambda: trainer().fit(torch.rand(9, 5), "3"), "steps is '3'"),
    "fewer steps than none": (lambda: trainer().fit(torch.rand(9, 5), -1), "steps is -1"),
    "how it is shown": (lambda: trainer().fit(torch.rand(9, 5), 1, progress="bar"), "progress is 'bar'"),
    "a report of a class": (lambda: report(mow.Trainer, "nowhere"), "trainer is the class Trainer"),
    "no loss": (lambda: mow.accumulate(3, torch.zeros(3, 2)), "loss_fn is of type int"),
    "no encoder": (lambda: mow.accumulate_coupled(3, len, torch.zeros(3, 2)), "encode is of type int"),
    "parameters of a module": (lambda: mow.GradientNoiseScale(nn.Linear(2, 1)), "parameters is of type Linear"),
    "a decay": (lambda: mow.GradientNoiseScale([], decay="slow"), "parameters holds none"),
    "slots": (lambda: mk.Ring("slots", torch.tensor(0)), "slots is str and head torch.int64"),
    "a head that is none": (
        lambda: mk.Ring(torch.zeros(3, 2), torch.zeros(())),
        r"slots is torch.float32 \[3, 2\] and head torch.float32 \[\]",
    ),
    "an option in words": (lambda: Options(n="64").resolved(), "n is '64'; it must be an integer"),
    "half a step": (lambda: Options(steps=1.5).resolved(), "steps is 1.5; it must be an integer"),
    "a rate in words": (lambda: Options(lr="fast").resolved(), "lr is of type str; it must be a number"),
    "a switch in words": (lambda: Options(root="no").resolved(), "root is 'no'; it must be True or False"),
    "a blur": (lambda: SamplesLoss("gaussian", blur="wide"), "blur is 'wide'"),
    "no sample": (lambda: SamplesLoss("energy")(X.numpy(), X), "x is of type ndarray"),
    "widths": (lambda: mix_rbf_mmd2(X, X, sigmas=("wide",)), r"sigmas\[0\] is 'wide'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_argument_is_named_where_it_was_given(what: str) -> None:
    call, message = WRONG[what]
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_a_path_is_an_option_as_its_text_is(tmp_path: Path) -> None:
    assert Options(data_dir=tmp_path).resolved() == Options(data_dir=str(tmp_path)).resolved()  # type: ignore[arg-type]  # as people give it
