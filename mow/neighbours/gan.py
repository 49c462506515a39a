"""Two time-scale training of a GAN: a constant learning rate for the discriminator, another for the generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Optimizer

from mow.checks import expect, integer, number, positive
from mow.naming import named, optimizer_name
from mow.training.buffers import Buffers
from mow.training.nonfinite import ON_NONFINITE, admits
from mow.training.states import take_over
from mow.training.stream import as_input, as_tensor
from mow.window.priors import Normal, Prior

_PARTS = ("generator", "discriminator", "generator_optimizer", "discriminator_optimizer")


def adam(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Adam with beta = (0.5, 0.999), as is usual for GANs (Radford et al. 2016, arXiv 1511.06434)."""
    return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999), fused=True)


class GANTrainer:
    """Trains a GAN with the non-saturating loss, one step of the discriminator and one of the generator at a time.

        >>> from mow.neighbours.gan import GANTrainer
        >>> trainer = GANTrainer(decoder, nn.Linear(6, 1), dim=8, lr_discriminator=3e-4, lr_generator=1e-4)
        >>> losses = trainer.step(x)
        >>> trainer.sample(5).shape
        torch.Size([5, 6])

    The discriminator descends softplus(-d(x)) + softplus(d(g(v))), the generator softplus(-d(g(v))), each a mean over
    the batch and each with its own constant learning rate (the two time-scale update rule).

    The networks' buffers (batch norm's statistics, spectral norm's vectors) are written by the passes that train them:
    the penalty, the generator's step through the discriminator, `sample` and a step that is skipped leave them.

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
        on_nonfinite: what a step does whose loss is NaN or infinite: "stop" raises, "skip" goes on to the next and
            counts it in `steps_skipped`, "ignore" does not look, which would wait for a GPU. The discriminator's step
            comes first: where the generator's loss alone is not finite, it has been taken.

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
        on_nonfinite: str = "stop",
    ) -> None:
        for name, network in (("generator", generator), ("discriminator", discriminator)):
            expect(isinstance(network, nn.Module), name, network, "an object of torch.nn.Module")
        expect(callable(optimizer), "optimizer", optimizer, "a function of parameters and a learning rate")
        lr_discriminator = number("lr_discriminator", lr_discriminator, above=0)
        lr_generator = number("lr_generator", lr_generator, above=0)
        penalty, seed = number("penalty", penalty, at_least=0), integer("seed", seed)
        if not (prior is None or isinstance(prior, Prior)):
            raise TypeError(f"prior is {prior!r}; it must be a mow.priors.Prior or None")
        if on_nonfinite not in ON_NONFINITE:
            raise ValueError(
                f"on_nonfinite is {on_nonfinite!r}; it must be one of {', '.join(map(repr, ON_NONFINITE))}"
            )
        self.on_nonfinite, self.steps_skipped = on_nonfinite, 0
        self.generator, self.discriminator, self.penalty = generator, discriminator, penalty
        self.generator_optimizer = optimizer(generator.parameters(), lr_generator)
        self.discriminator_optimizer = optimizer(discriminator.parameters(), lr_discriminator)
        self._like = next(generator.parameters()).new_empty(1, positive("dim", dim))
        self._random = torch.Generator(self._like.device).manual_seed(seed)
        self.prior = Normal(self._random) if prior is None else prior

    def __repr__(self) -> str:
        return named(
            self,
            dim=self._like.shape[1],
            prior=self.prior,
            penalty=self.penalty,
            generator_optimizer=optimizer_name(self.generator_optimizer),
            discriminator_optimizer=optimizer_name(self.discriminator_optimizer),
        )

    def step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of both networks on real elements x [k, ...], as `mow.Trainer.step` takes them.

        Returns:
            discriminator, its loss without the penalty, and generator, its loss; 0-d and detached. The generator's is
            left out where the discriminator's step was skipped.

        Raises:
            FloatingPointError: a loss is NaN or infinite and on_nonfinite "stop". The network whose it is, and its
                optimiser, are as before.
        """
        x = as_tensor("x", x)
        x = as_input(x.to(self._like.device), self._like.dtype)
        before = {name: Buffers(getattr(self, name)) for name in ("generator", "discriminator")}
        try:
            return self._step(x, before)
        finally:  # of what no step was taken of
            for buffers in before.values():
                buffers.restore()

    def _step(self, x: Tensor, before: dict[str, Buffers]) -> dict[str, Tensor]:
        """`step`; a network that it has trained is taken out of `before`."""
        fake = self.generator(self.prior.sample(len(x), self._like))

        loss = softplus(-self.discriminator(x)).mean() + softplus(self.discriminator(fake.detach())).mean()
        with Buffers(self.discriminator):  # the points of the penalty are no elements of either side
            penalty = self.penalty * self._slope(x, fake.detach()) if self.penalty else 0.0
            if not self._admits("discriminator", (loss + penalty).detach()):
                return {"discriminator": loss.detach()}
            self.discriminator_optimizer.zero_grad()
            (loss + penalty).backward()
            self.discriminator_optimizer.step()
        del before["discriminator"]

        with Buffers(self.discriminator):  # which is not trained here
            generator_loss = softplus(-self.discriminator(fake)).mean()
            if self._admits("generator", generator_loss.detach()):
                self.generator_optimizer.zero_grad()
                generator_loss.backward(inputs=[p for p in self.generator.parameters() if p.requires_grad])
                self.generator_optimizer.step()
                del before["generator"]
        return {"discriminator": loss.detach(), "generator": generator_loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the data and a prior of your own."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        return {**parts, "random": self._random.get_state(), "steps_skipped": self.steps_skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            KeyError, RuntimeError, ValueError: another trainer's state; nothing has changed.
        """
        take_over(state, self._load, self.state_dict)

    def _load(self, state: dict[str, Any]) -> None:
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self._random.set_state(state["random"])
        self.steps_skipped = state.get("steps_skipped", 0)  # older states lack it

    def _admits(self, name: str, loss: Tensor) -> bool:
        admitted = admits(
            self.on_nonfinite,
            loss,
            lambda: (
                f"the {name}'s loss is not finite; its weights are those before (a lower learning rate may avoid it)"
            ),
        )
        self.steps_skipped += not admitted
        return admitted

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """count elements generated from N(0, I); the same draws for the same seed, and none of the training's."""
        draw = Normal(torch.Generator(self._like.device).manual_seed(seed))
        with Buffers(self.generator):
            return self.generator(draw.sample(count, self._like))

    def _slope(self, x: Tensor, fake: Tensor) -> Tensor:
        """mean of (|grad d| - 1)^2 at points between real and generated elements."""
        shape = [len(x)] + [1] * (x.dim() - 1)
        weight = torch.rand(shape, device=x.device, dtype=x.dtype, generator=self._random)
        between = torch.lerp(fake, x, weight).requires_grad_()
        (slopes,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        return (slopes.flatten(1).norm(dim=1) - 1).square().mean()
