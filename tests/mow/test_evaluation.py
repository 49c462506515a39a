"""Scores of a model on pictures that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow import priors
from mow.app import evaluation
from mow.app.features import Features
from mow.training import passes
from mow.training.stream import to_unit_range

SHAPE, DIM = (1, 3, 4), 2


def pictures(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)


def linear_model() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, DIM)), nn.Sequential(nn.Linear(DIM, 12), nn.Unflatten(1, SHAPE))


class Restless(nn.Module):
    """Everything that would tell training mode from evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, DIM)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


USES: dict[str, Callable[[nn.Module, nn.Module], object]] = {
    "evaluate": lambda encoder, decoder: evaluation.evaluate(encoder, decoder, pictures(30)),
    "score": lambda encoder, decoder: evaluation.score(encoder, decoder, pictures(30)),
    "encode": lambda encoder, _: passes.encode(encoder, pictures(30)),
    "reconstruct": lambda encoder, decoder: passes.reconstruct(encoder, decoder, pictures(30)),
    "interpolate": lambda encoder, decoder: passes.interpolate(encoder, decoder, pictures(4), pictures(4, 1), 5),
    "decode": lambda _, decoder: passes.decode(decoder, torch.randn(3, DIM, generator=torch.Generator())),
}


@pytest.mark.parametrize("batch", [1, 7, 50, 500])
def test_the_scores_by_hand(batch: int) -> None:
    encoder, decoder = linear_model()
    x = pictures(50)
    scores = evaluation.evaluate(encoder, decoder, x, batch=batch)
    unit = x.float() / 255
    z = encoder(unit)
    assert scores["test_reconstruction"] == pytest.approx(
        float((decoder(z) - unit).detach().square().sum() / 50), rel=1e-6
    )
    assert scores["test_cramer_wold"] == pytest.approx(float(mk.cramer_wold(z.detach().double())), rel=1e-5)
    assert scores.keys() == {"test_reconstruction", "test_cramer_wold"}
    assert all(type(value) is float for value in scores.values())


def test_the_distance_is_that_of_the_first_2000_latents_and_the_error_that_of_all() -> None:
    encoder, decoder = linear_model()
    x = pictures(2300)
    scores = evaluation.evaluate(encoder, decoder, x)
    first = evaluation.evaluate(encoder, decoder, x[:2000])
    assert scores["test_cramer_wold"] == first["test_cramer_wold"]
    assert scores["test_reconstruction"] != first["test_reconstruction"]
    unit = x.float() / 255
    assert scores["test_reconstruction"] == pytest.approx(
        float((decoder(encoder(unit)) - unit).detach().square().sum() / 2300), rel=1e-6
    )


def test_pictures_may_be_floating_point() -> None:
    encoder, decoder = linear_model()
    x = pictures(20)
    assert evaluation.evaluate(encoder, decoder, x) == evaluation.evaluate(encoder, decoder, x.float() / 255)


@pytest.mark.parametrize("use", USES)
def test_a_model_is_used_in_evaluation_mode_and_left_as_it_was(use: str) -> None:
    encoder, decoder = Restless(), linear_model()[1].append(nn.Dropout(0.9))
    encoder.train(), decoder.train()
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    random = torch.get_rng_state()
    first, second = USES[use](encoder, decoder), USES[use](encoder, decoder)
    assert torch.equal(first, second) if isinstance(first, Tensor) else first == second
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random), "no random numbers are drawn"
    assert encoder.training and decoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    encoder.eval()
    USES[use](encoder, decoder)
    assert not encoder.training and decoder.training


@pytest.mark.parametrize("use", ["evaluate", "reconstruct", "interpolate"])
def test_a_part_that_is_frozen_stays_frozen(use: str) -> None:
    encoder, decoder = Restless(), linear_model()[1]
    encoder.train()
    encoder.layers[2].eval()
    USES[use](encoder, decoder)
    assert not encoder.layers[2].training
    assert encoder.training and encoder.layers[3].training


def test_the_mode_is_restored_after_an_error() -> None:
    encoder, decoder = linear_model()
    with pytest.raises(RuntimeError):
        evaluation.evaluate(encoder, decoder, torch.zeros(3, 1, 5, 5))
    assert encoder.training and decoder.training
    assert torch.is_grad_enabled()


def test_the_scores_of_the_tables_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """On subsets of 20 of 50 latents: each figure from its definition."""
    monkeypatch.setattr(evaluation, "LATENTS", 20)
    encoder, decoder = linear_model()
    x = pictures(50)
    scores = evaluation.score(encoder, decoder, x, seed=3)
    z = encoder(x.float() / 255).detach().double()
    generator = torch.Generator().manual_seed(3)
    subsets = [z[torch.randperm(50, generator=generator)[:20]] for _ in range(5)]
    draws = [torch.randn(20, DIM, generator=generator).double() for _ in range(3)]
    gamma, k = (4 / (3 * 20)) ** 0.4, 1 / (2 * DIM - 3)

    def asymptotic(z: Tensor) -> Tensor:
        pairs = (gamma + k * torch.cdist(z, z).square()).rsqrt().mean()
        return (1 + gamma) ** -0.5 + pairs - 2 * (gamma + 0.5 + k * z.square().sum(1)).rsqrt().mean()

    expected = {
        "test_latents": 20,
        "test_cwae_distance": float(torch.stack([asymptotic(subset) for subset in subsets]).mean()),
        "test_cwae_distance_exact": sum(float(mk.cramer_wold(subset)) for subset in subsets) / 5,
        "test_wae_distance": sum(float(mk.mmd(subsets[0], None, draw)) for draw in draws) / 3,
        "test_mmd": float(mk.mmd(subsets[0])),
    }
    assert scores == {**scores, **{name: pytest.approx(value, rel=1e-6) for name, value in expected.items()}}
    reconstruction = evaluation.evaluate(encoder, decoder, x)["test_reconstruction"]
    assert scores["test_cost_mmd"] == pytest.approx(reconstruction + scores["test_wae_distance"])
    assert scores["test_cost_log_mmd"] == pytest.approx(reconstruction + math.log(scores["test_wae_distance"]))
    assert scores["test_cost_log_cw"] == pytest.approx(reconstruction + math.log(scores["test_cwae_distance"]))


def test_a_score_tells_its_seed() -> None:
    encoder, decoder = linear_model()
    scores = [evaluation.score(encoder, decoder, pictures(2100), seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1]
    drawn = ("cwae_distance", "cwae_distance_exact", "wae_distance", "mmd", "sliced_wasserstein")
    assert all(scores[0][f"test_{name}"] != scores[2][f"test_{name}"] for name in drawn)
    assert scores[0]["test_latents"] == 2000 and scores[0]["test_kurtosis"] == scores[2]["test_kurtosis"]


def test_what_is_not_defined_is_left_out() -> None:
    encoder, decoder = linear_model()
    narrow = nn.Sequential(*encoder, nn.Linear(DIM, 1))
    scores = evaluation.score(narrow, nn.Sequential(nn.Linear(1, DIM), *decoder), pictures(20))
    assert "test_cwae_distance" not in scores and "test_cost_log_cw" not in scores, "no asymptotic form at D = 1"
    one = evaluation.score(encoder, decoder, pictures(1))
    assert one.keys() & {"test_mmd", "test_wae_distance", "test_skewness"} == set()
    left_out = scores.pop("left_out") | one.pop("left_out")
    assert left_out["test_cwae_distance"] == "phi has no asymptotic form for latents of width 1"
    assert left_out["test_mmd"] == left_out["test_cost_mmd"] == "one latent has no pairs"
    assert all(math.isfinite(value) for value in (*scores.values(), *one.values()))
    assert "left_out" not in evaluation.score(encoder, decoder, pictures(20)), "nothing is, mostly"


def test_the_samples_of_a_score_are_compared_in_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SAMPLES", 1000)
    encoder, decoder = linear_model()
    x = pictures(40)
    features = Features("flat", 1.0, lambda pictures: to_unit_range(pictures).flatten(1).double())
    scores = evaluation.score(encoder, decoder, x, prior="sphere", features=features, seed=1)
    latents = priors.sample("sphere", evaluation.SAMPLES, torch.zeros(1, DIM), torch.Generator().manual_seed(1))
    generated = decoder(latents).detach().flatten(1)
    assert scores["test_frechet_classifier"] == pytest.approx(
        evaluation.frechet_distance(x.flatten(1) / 255, generated), rel=1e-5
    )
    x, y = (x.flatten(1) / 255).double(), generated.double()
    cubic = [(u @ v.T / u.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y))]
    unbiased = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in cubic[:2]) - 2 * cubic[2].mean()
    assert scores["test_mmd_polynomial_classifier"] == pytest.approx(float(unbiased), rel=1e-5)
    gaussian = [torch.exp(-torch.cdist(u, v).square() / 200).mean() for u, v in ((x, x), (y, y), (x, y))]
    biased = float(1000 * (gaussian[0] + gaussian[1] - 2 * gaussian[2]))
    assert scores["test_mmd_gaussian_classifier"] == pytest.approx(biased, rel=1e-5)
    without = evaluation.score(encoder, decoder, pictures(40))
    assert not [name for name in without if name.endswith(("classifier", "inception"))]


class Constant(nn.Module):
    """The same latent for every picture, in whose mean rounding leaves its traces."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), DIM)


FLAT = Features("flat", 1.0, lambda pictures: to_unit_range(pictures).flatten(1).double())


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_equal_latents_have_the_scores_that_are_defined(value: float) -> None:
    scores = evaluation.score(Constant(value), linear_model()[1], pictures(30), features=FLAT)
    reason = "the covariance of the latents is singular or not finite"
    assert {scores["left_out"].pop(name) for name in ("test_skewness", "test_kurtosis")} == {reason}
    assert scores.pop("left_out") == {} and scores.keys() > {"test_mmd", "test_frechet_classifier", "test_cost_log_cw"}
    assert all(math.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_is_not_finite_has_reasons_instead_of_scores(bad: float) -> None:
    encoder, decoder = linear_model()
    decoder[0].weight.data.fill_(bad)
    scores = evaluation.score(Constant(bad), decoder, pictures(30), features=FLAT)
    left_out = scores.pop("left_out")
    assert scores == {"test_latents": 30} and left_out["test_reconstruction"] == f"it is {bad}"
    assert left_out.keys() > {
        "test_cramer_wold",
        "test_mmd",
        "test_skewness",
        "test_cost_mmd",
        "test_frechet_classifier",
        "test_mmd_polynomial_classifier",
    }


def test_one_picture_has_no_frechet_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "inception_is_here", lambda: True)
    monkeypatch.setattr(evaluation, "inception_distance", lambda real, generated: pytest.fail("it was computed"))
    left_out = evaluation.score(*linear_model(), pictures(1), features=FLAT)["left_out"]
    assert left_out["test_fid"] == left_out["test_frechet_classifier"] == "one picture has no covariance"
    kernels = (*evaluation.INCEPTION_KERNELS, *evaluation.CLASSIFIER_KERNELS)
    assert {left_out[name] for name in kernels} == {"one picture has no pairs"}


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (1, 1)])
def test_a_frechet_distance_takes_two_rows(randn: Callable[..., Tensor], shape: tuple[int, int]) -> None:
    other = randn(5, shape[1])
    for name, pair in (("a", (torch.zeros(shape), other)), ("b", (other, torch.zeros(shape)))):
        with pytest.raises(ValueError, match=rf"{name} has shape \[{shape[0]}, {shape[1]}\]; it must be \[rows, F\]"):
            evaluation.frechet_distance(*pair)


def test_the_frechet_distance_of_one_feature(randn: Callable[..., Tensor]) -> None:
    """(mean a - mean b)^2 + (sd a - sd b)^2."""
    a, b = randn(20, 1), 3 * randn(30, 1) + 1
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert evaluation.frechet_distance(a, b) == pytest.approx(float(expected))
    one = Features("one", 1.0, lambda pictures: to_unit_range(pictures).flatten(1)[:, :1].double())
    assert evaluation.score(*linear_model(), pictures(20), features=one)["test_frechet_classifier"] > 0


def test_the_frechet_distance_of_what_is_not_finite(randn: Callable[..., Tensor]) -> None:
    assert math.isnan(evaluation.frechet_distance(randn(5, 3), randn(5, 3) * math.nan))


def test_inception_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def distance(real: Iterator[Tensor], generated: Iterator[Tensor], features: dict[bool, list[Tensor]]) -> float:
        seen.append((sum(map(len, real)), sum(map(len, generated))))
        features[True], features[False] = list(torch.eye(3).split(2)), [torch.ones(3, 3)]
        return 12.5

    monkeypatch.setattr(evaluation, "inception_is_here", lambda: True)
    monkeypatch.setattr(evaluation, "inception_distance", distance)
    scores = evaluation.score(*linear_model(), pictures(30))
    assert scores["test_fid"] == 12.5 and scores["test_kid"] == pytest.approx(1 + 2**3 - 2 * (4 / 3) ** 3)
    assert scores["test_mmd_gaussian_inception"] > 0
    assert seen == [(30, evaluation.SAMPLES)]


def test_mardia_by_its_definition(randn: Callable[..., Tensor]) -> None:
    z = randn(30, 3).exp()
    centred = z - z.mean(0)
    m = centred @ torch.linalg.inv(centred.T @ centred / 30) @ centred.T
    expected = float(m.pow(3).mean()), float(m.diagonal().square().mean()) - 15
    for chunk in (1, 7, 1000):
        assert evaluation.mardia(z, chunk=chunk) == pytest.approx(expected)
    assert evaluation.mardia(z @ randn(3, 3) + 5) == pytest.approx(expected), "the same in all coordinates"


def test_mardia_of_normal_rows_is_near_0() -> None:
    skewness, kurtosis = evaluation.mardia(torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)))
    assert skewness == pytest.approx(4 * 5 * 6 / 4000, rel=0.5) and abs(kurtosis) < 1


def test_mardia_of_rows_in_a_plane() -> None:
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()).Q
    for rows in (torch.cat([z, z[:, :1]], 1), torch.cat([z, z[:, :1]], 1).double() @ turn, z[:2], z[:1]):
        assert all(math.isnan(value) for value in evaluation.mardia(rows))
    scaled = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-9, 1, 1e9])
    assert all(math.isfinite(value) for value in evaluation.mardia(scaled.double() + torch.tensor([1e-8, 1, 0])))


def test_the_mean_picture() -> None:
    train, test = pictures(40), pictures(9, seed=1)
    mean = train.double().mean(0) / 255
    expected = sum(float((picture / 255 - mean).square().sum()) for picture in test.double()) / 9
    assert evaluation.mean_picture_error(train, test) == pytest.approx(expected, rel=1e-6)


def test_reconstructions() -> None:
    encoder, decoder = linear_model()
    x = pictures(5)
    shown = passes.reconstruct(encoder, decoder, x)
    assert shown.shape == x.shape and not shown.requires_grad
    torch.testing.assert_close(shown, decoder(encoder(x.float() / 255)).detach())


def test_decoded_latents() -> None:
    decoder, z = linear_model()[1], torch.randn(3, DIM, generator=torch.Generator().manual_seed(0))
    shown = passes.decode(decoder, z)
    assert shown.shape == (3, *SHAPE) and not shown.requires_grad
    torch.testing.assert_close(shown, decoder(z).detach())


def test_interpolations_go_from_one_reconstruction_to_the_other() -> None:
    encoder, decoder = linear_model()
    starts, ends = pictures(3), pictures(3, seed=1)
    walks = passes.interpolate(encoder, decoder, starts, ends, 5)
    assert walks.shape == (3, 5, *SHAPE)
    a, b = (passes.reconstruct(encoder, decoder, x) for x in (starts, ends))
    for stage, walk in enumerate(walks.unbind(1)):  # the decoder is linear, hence so are the walks
        torch.testing.assert_close(walk, a + stage / 4 * (b - a), rtol=1e-5, atol=1e-6)


def test_the_frechet_distance_of_a_scaled_and_shifted_sample(randn: Callable[..., Tensor]) -> None:
    """B = s^2 A, hence (A B)^(1/2) = s A and |shift of the mean|^2 + (1 - s)^2 tr A remain."""
    a = randn(50, 3) @ randn(3, 5)  # of rank 3
    b = 3 * a + torch.tensor([1.0, 0, 0, 2, 0], dtype=torch.float64)
    expected = (b.mean(0) - a.mean(0)).square().sum() + 4 * torch.cov(a.T).trace()
    assert evaluation.frechet_distance(a, b) == pytest.approx(float(expected))
    assert evaluation.frechet_distance(b, a) == pytest.approx(float(expected))
    assert evaluation.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_covariances_that_do_not_commute(randn: Callable[..., Tensor]) -> None:
    a, b = randn(40, 4) @ randn(4, 4), randn(60, 4) @ randn(4, 4)
    root = torch.linalg.eigvals(torch.cov(a.T) @ torch.cov(b.T)).sqrt().sum().real
    expected = (a.mean(0) - b.mean(0)).square().sum() + torch.cov(a.T).trace() + torch.cov(b.T).trace() - 2 * root
    assert evaluation.frechet_distance(a, b) == pytest.approx(float(expected))
