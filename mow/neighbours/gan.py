"""Two time-scale training of a GAN: a constant learning rate for the discriminator, another for the generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Optimizer

from mow.checks import positive
from mow.window.priors import Normal, Prior


def adam(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Adam with beta = (0.5, 0.999), as is usual for GANs (Radford et al. 2016, arXiv 1511.06434)."""
    return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999), fused=True)


class GANTrainer:
    """Trains a GAN with the non-saturating loss, one step of the discriminator and one of the generator at a time.

    The discriminator descends softplus(-d(x)) + softplus(d(g(v))), the generator softplus(-d(g(v))), each a mean over
    the batch and each with its own constant learning rate (the two time-scale update rule).

    Core-sets instead of random samples: `mow.neighbours.coreset.CoresetPrior` as the prior, and `mow.CoresetSampler`
    for the data.

    Args:
        generator: prior samples [k, D] -> elements [k, ...].
        discriminator: elements [k, ...] -> logits [k, 1] or [k], high for real ones.
        dim: D.
        lr_discriminator, lr_generator: > 0.
        optimizer: from parameters and a learning rate to an optimiser; Adam by default.
        penalty: weight >= 0 of the mean of (|grad d| - 1)^2 at random points between real and generated elements.
        prior: None for N(0, I), sampled from `seed`.
        seed: of the draws.

    Raises:
        TypeError, ValueError: a bad argument, by name.

    Sources: Goodfellow et al. 2014 (arXiv 1406.2661), section 3, for the loss; Heusel et al. 2017 (arXiv 1706.08500)
    for the two time-scales; Gulrajani et al. 2017 (arXiv 1704.00028) for the penalty; Sinha et al. 2020 (arXiv
    1910.13540) for the core-sets.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        dim: int,
        *,
        lr_discriminator: float = 3e-4,
        lr_generator: float = 1e-4,
        optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer] = adam,
        penalty: float = 0.0,
        prior: Prior | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("lr_discriminator", lr_discriminator), ("lr_generator", lr_generator)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value!r}; it must be finite and > 0")
        if not 0 <= penalty < float("inf"):
            raise ValueError(f"penalty is {penalty!r}; it must be finite and >= 0")
        if not (prior is None or isinstance(prior, Prior)):
            raise TypeError(f"prior is {prior!r}; it must be a mow.priors.Prior or None")
        self.generator, self.discriminator, self.penalty = generator, discriminator, penalty
        self.generator_optimizer = optimizer(generator.parameters(), lr_generator)
        self.discriminator_optimizer = optimizer(discriminator.parameters(), lr_discriminator)
        self._like = next(generator.parameters()).new_empty(1, positive("dim", dim))
        self._random = torch.Generator(self._like.device).manual_seed(seed)
        self.prior = Normal(self._random) if prior is None else prior

    def step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of both networks on real elements x [k, ...].

        Returns:
            discriminator, its loss without the penalty, and generator, its loss; 0-d and detached.
        """
        fake = self.generator(self.prior.sample(len(x), self._like))

        loss = softplus(-self.discriminator(x)).mean() + softplus(self.discriminator(fake.detach())).mean()
        penalty = self.penalty * self._slope(x, fake.detach()) if self.penalty else 0.0
        self.discriminator_optimizer.zero_grad()
        (loss + penalty).backward()
        self.discriminator_optimizer.step()

        generator_loss = softplus(-self.discriminator(fake)).mean()
        self.generator_optimizer.zero_grad()
        generator_loss.backward(inputs=[p for p in self.generator.parameters() if p.requires_grad])
        self.generator_optimizer.step()
        return {"discriminator": loss.detach(), "generator": generator_loss.detach()}

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """count elements generated from N(0, I); the same draws for the same seed, and none of the training's."""
        return self.generator(Normal(torch.Generator(self._like.device).manual_seed(seed)).sample(count, self._like))

    def _slope(self, x: Tensor, fake: Tensor) -> Tensor:
        """mean of (|grad d| - 1)^2 at points between real and generated elements."""
        shape = [len(x)] + [1] * (x.dim() - 1)
        weight = torch.rand(shape, device=x.device, dtype=x.dtype, generator=self._random)
        between = torch.lerp(fake, x, weight).requires_grad_()
        (slopes,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        return (slopes.flatten(1).norm(dim=1) - 1).square().mean()
