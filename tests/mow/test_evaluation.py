"""Scores of a model on pictures that it has not seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow import evaluation

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
    "reconstruct": lambda encoder, decoder: evaluation.reconstruct(encoder, decoder, pictures(30)),
    "interpolate": lambda encoder, decoder: evaluation.interpolate(encoder, decoder, pictures(4), pictures(4, 1), 5),
    "decode": lambda _, decoder: evaluation.decode(decoder, torch.randn(3, DIM, generator=torch.Generator())),
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


def test_the_mean_picture() -> None:
    train, test = pictures(40), pictures(9, seed=1)
    mean = train.double().mean(0) / 255
    expected = sum(float((picture / 255 - mean).square().sum()) for picture in test.double()) / 9
    assert evaluation.mean_picture_error(train, test) == pytest.approx(expected, rel=1e-6)


def test_reconstructions() -> None:
    encoder, decoder = linear_model()
    x = pictures(5)
    shown = evaluation.reconstruct(encoder, decoder, x)
    assert shown.shape == x.shape and not shown.requires_grad
    torch.testing.assert_close(shown, decoder(encoder(x.float() / 255)).detach())


def test_decoded_latents() -> None:
    decoder, z = linear_model()[1], torch.randn(3, DIM, generator=torch.Generator().manual_seed(0))
    shown = evaluation.decode(decoder, z)
    assert shown.shape == (3, *SHAPE) and not shown.requires_grad
    torch.testing.assert_close(shown, decoder(z).detach())


def test_interpolations_go_from_one_reconstruction_to_the_other() -> None:
    encoder, decoder = linear_model()
    starts, ends = pictures(3), pictures(3, seed=1)
    walks = evaluation.interpolate(encoder, decoder, starts, ends, 5)
    assert walks.shape == (3, 5, *SHAPE)
    a, b = (evaluation.reconstruct(encoder, decoder, x) for x in (starts, ends))
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
