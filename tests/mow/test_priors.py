"""Samples of the priors have the distribution that their names promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from mow import priors
from mow.window.priors import Normal, Prior, Sphere, Uniform

KINDS = {"normal-sample": Normal, "uniform": Uniform, "sphere": Sphere}
VARIANCES = {Normal: 1.0, Uniform: 1 / 3, Sphere: 1 / 4}  # of a coordinate, D = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(kind: type[Prior], m: int = 20_000, dim: int = 4) -> Tensor:
    return kind(seeded()).sample(m, torch.empty(1, dim, dtype=torch.float64))


@pytest.mark.parametrize("kind", VARIANCES)
def test_mean_and_covariance(kind: type[Prior]) -> None:
    sample, variance = draw(kind), VARIANCES[kind]
    five_sigma = 5 / math.sqrt(len(sample))
    torch.testing.assert_close(sample.mean(0), torch.zeros(4).double(), atol=five_sigma * variance**0.5, rtol=0)
    covariance = sample.T @ sample / len(sample)
    torch.testing.assert_close(covariance, variance * torch.eye(4).double(), atol=1.5 * five_sigma * variance, rtol=0)


@pytest.mark.parametrize(
    "kind, dim, cdf",
    [
        (Normal, 4, "norm"),
        (Uniform, 4, lambda x: (x + 1) / 2),
        (Sphere, 3, lambda x: (x + 1) / 2),  # Archimedes: a coordinate on the sphere in 3 dimensions is uniform
        (Sphere, 2, lambda x: 1 - torch.as_tensor(x).acos().numpy() / math.pi),
    ],
)
def test_the_distribution_of_a_coordinate(kind: type[Prior], dim: int, cdf: Any) -> None:
    for coordinate in draw(kind, dim=dim).T:
        assert kstest(coordinate.numpy(), cdf).pvalue > 1e-4


def test_bounds() -> None:
    uniform = draw(Uniform)
    assert uniform.abs().max() <= 1 and uniform.min() < -0.999 and uniform.max() > 0.999
    torch.testing.assert_close(draw(Sphere).norm(dim=1), torch.ones(20_000).double(), rtol=1e-6, atol=0)
    assert draw(Sphere, m=50, dim=1).abs().unique().tolist() == [1]


@pytest.mark.parametrize("kind", VARIANCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_the_latents(kind: type[Prior], dtype: torch.dtype) -> None:
    sample = kind().sample(7, torch.empty(2, 5, dtype=dtype, requires_grad=True))
    assert sample.shape == (7, 5) and sample.dtype == dtype and not sample.requires_grad


@pytest.mark.parametrize("kind", VARIANCES)
def test_what_a_generator_draws(kind: type[Prior]) -> None:
    like, prior = torch.empty(1, 3), kind(seeded(1))
    state = torch.get_rng_state()
    first, second = prior.sample(4, like), prior.sample(4, like)
    assert torch.equal(torch.get_rng_state(), state), "the default generator is left alone"
    assert not torch.equal(first, second), "each sample is a fresh one"
    assert torch.equal(first, kind(seeded(1)).sample(4, like))
    assert not torch.equal(first, kind(seeded(2)).sample(4, like))


@pytest.mark.parametrize("kind", VARIANCES)
def test_without_a_generator_the_default_one_is_drawn_from(kind: type[Prior]) -> None:
    like = torch.empty(1, 3)
    torch.manual_seed(5)
    first = kind().sample(4, like)
    torch.manual_seed(5)
    assert torch.equal(kind().sample(4, like), first)


def test_the_draw_is_the_same_in_every_dtype() -> None:
    single = Normal(seeded()).sample(5, torch.empty(1, 3))
    double = Normal(seeded()).sample(5, torch.empty(1, 3, dtype=torch.float64))
    assert torch.equal(single.double(), double)


# Names


@pytest.mark.parametrize("name", KINDS)
def test_named(name: str) -> None:
    assert type(priors.named(name)) is KINDS[name]
    prior = KINDS[name]()
    assert priors.named(prior) is prior


def test_the_closed_form_stays_a_name() -> None:
    assert priors.named("normal") == "normal"


@pytest.mark.parametrize("value, kind, message", [("gauss", ValueError, "'gauss'"), (None, TypeError, "NoneType")])
def test_what_is_no_prior(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"prior is {message}"):
        priors.named(value)


@pytest.mark.parametrize("name", ["normal", *KINDS])
def test_samples_to_decode(name: str) -> None:
    like = torch.empty(1, 3)
    sample = priors.sample(name, 6, like, seeded(3))
    assert torch.equal(sample, KINDS.get(name, Normal)(seeded(3)).sample(6, like))
    assert torch.equal(sample, priors.sample(priors.named(name), 6, like, seeded(3)))
