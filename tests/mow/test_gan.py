"""The GAN trainer: its loss, its two time-scales, its penalty, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mow.app.evaluation import frechet_distance
from mow.app.models import mlp
from mow.neighbours.coreset import CoresetPrior
from mow.neighbours.gan import GANTrainer
from mow.window.priors import Normal


def sgd(parameters, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def trainer(**options) -> GANTrainer:
    torch.manual_seed(0)
    return GANTrainer(mlp(3, 16, 2), mlp(2, 16, 1), 3, **options)


def parameters(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_step_is_the_non_saturating_one_with_a_rate_each(randn: Callable[..., Tensor]) -> None:
    gan = trainer(optimizer=sgd, lr_discriminator=0.3, lr_generator=0.1, seed=5)
    x = randn(4, 2, dtype=torch.float32)
    generator, discriminator = gan.generator, gan.discriminator
    fake = generator(torch.randn(4, 3, generator=torch.Generator().manual_seed(5)))
    loss = softplus(-discriminator(x)).mean() + softplus(discriminator(fake)).mean()
    g_discriminator = torch.autograd.grad(loss, tuple(discriminator.parameters()), retain_graph=True)
    before = parameters(generator), parameters(discriminator)

    result = gan.step(x)

    moved = parameters(discriminator) - before[1]
    torch.testing.assert_close(moved, -0.3 * torch.cat([g.flatten() for g in g_discriminator]))
    assert float(result["discriminator"]) == pytest.approx(loss.item(), rel=1e-6)

    after = parameters(generator)
    nn.utils.vector_to_parameters(before[0], generator.parameters())  # its loss is after the discriminator's step
    fake = generator(torch.randn(4, 3, generator=torch.Generator().manual_seed(5)))
    loss = softplus(-discriminator(fake)).mean()
    g_generator = torch.autograd.grad(loss, tuple(generator.parameters()))
    torch.testing.assert_close(after - before[0], -0.1 * torch.cat([g.flatten() for g in g_generator]))
    assert float(result["generator"]) == pytest.approx(loss.item(), rel=1e-6)
    for parameter, g in zip(discriminator.parameters(), g_discriminator, strict=True):
        torch.testing.assert_close(parameter.grad, g)  # nothing of the generator's backward


def test_the_penalty_pulls_the_slope_to_one() -> None:
    """d(x) = <w, x>: the penalty is (|w| - 1)^2 wherever it is taken."""
    w = torch.tensor([[3.0, 4.0]])
    found = []
    for penalty in (0.0, 0.2):
        discriminator = nn.Linear(2, 1, bias=False)
        nn.utils.vector_to_parameters(w.flatten().clone(), discriminator.parameters())
        gan = GANTrainer(mlp(3, 2), discriminator, 3, optimizer=sgd, lr_discriminator=0.1, penalty=penalty)
        nn.utils.vector_to_parameters(torch.zeros(8), gan.generator.parameters())
        gan.step(torch.ones(4, 2))
        found.append(discriminator.weight.detach().clone())
    torch.testing.assert_close(found[1] - found[0], -0.1 * 0.2 * 2 * (5 - 1) * w / 5)


def test_it_learns(randn: Callable[..., Tensor]) -> None:
    data = randn(500, 2, dtype=torch.float32) * torch.tensor([0.5, 1.0]) + torch.tensor([2.0, -1.0])
    gan = trainer(lr_discriminator=3e-3, lr_generator=1e-3)
    before = frechet_distance(gan.sample(500), data)
    for step in range(600):
        gan.step(data[torch.arange(step * 16, step * 16 + 16) % 500])
    assert before > 4 and frechet_distance(gan.sample(500), data) < 0.8


def test_the_seed_decides_and_a_sample_draws_nothing_from_the_training(randn: Callable[..., Tensor]) -> None:
    x, found = randn(8, 2, dtype=torch.float32), []
    for seed, sampled in ((1, False), (1, True), (2, False)):
        gan = trainer(seed=seed, penalty=1.0)
        for _ in range(3):
            gan.step(x)
            if sampled:
                torch.rand(1)  # nor does the global generator matter
                assert torch.equal(gan.sample(5, seed=7), gan.sample(5, seed=7))
        found.append(parameters(gan.generator))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_prior_may_be_a_core_set(randn: Callable[..., Tensor]) -> None:
    drawn = []

    class Noting(CoresetPrior):
        def sample(self, m: int, like: Tensor) -> Tensor:
            drawn.append(super().sample(m, like))
            return drawn[-1]

    random = torch.Generator().manual_seed(0)
    gan = trainer(prior=Noting(prior=Normal(random), factor=4, generator=random))
    gan.step(randn(6, 2, dtype=torch.float32))
    assert [rows.shape for rows in drawn] == [(6, 3)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr_discriminator": 0}, ValueError, "lr_discriminator is 0; it must be finite and > 0"),
        ({"lr_generator": float("nan")}, ValueError, "lr_generator is nan"),
        ({"penalty": -1}, ValueError, "penalty is -1; it must be finite and >= 0"),
        ({"prior": "normal"}, TypeError, "prior is 'normal'; it must be a mow.priors.Prior or None"),
    ],
)
def test_bad_options_are_refused(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        trainer(**options)
    with pytest.raises(ValueError, match="dim is 0"):
        GANTrainer(mlp(3, 2), mlp(2, 1), 0)


def test_mlp_takes_any_activation() -> None:
    model = mlp(4, 5, 6, activation=partial(nn.LeakyReLU, 0.2))
    assert [type(layer).__name__ for layer in model] == ["Linear", "LeakyReLU", "Linear"]
    assert model(torch.zeros(3, 4)).shape == (3, 6)
