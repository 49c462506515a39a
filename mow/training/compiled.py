"""A whole step as one graph of torch.compile: encode, decode, backward, the optimiser's update, encode again.

The distance stays as it is, one opaque operation in the middle of the graph, so that whatever it keeps, counts or draws
is as in the eager step, as are weighting and the look at what is not finite.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from mow.checks import output
from mow.naming import named, optimizer_name
from mow.training.buffers import Buffers
from mow.training.exchange import Exchange
from mow.training.step import LATENTS, Slopes, clear_gradients, slopes, squared_errors, step
from mow.training.step_graph import CompiledGraph, Function, Network, Together, middle, traceable
from mow.training.updates import rules_of
from mow.training.weighting import Weighting
from mow.window.distances import Distance
from mow.window.window import MovingWindow


class Refused(Exception):
    """The step is not taken. Leaves the graph before anything is written."""


@dataclass
class _Built:
    """A compiled step, and what it takes beside the elements."""

    function: Function
    trained: list[Tensor]
    inputs: list[Tensor]
    """They, the buffers, and what the optimiser keeps of each of them, as far as the update reads it."""
    buffers: int
    """How many."""
    together: list[Together] | None
    """None where the optimiser's own `step()` does the update."""
    counts: Tensor | None
    """How often each has been updated, where the optimiser counts."""
    ran: bool
    """Whether it has come to its middle, and so has been compiled."""
    factors: tuple[list[tuple[float, ...]], Tensor] | None = None
    """Those of the last step."""


class CompiledStep:
    """`mow.training.step.step`, compiled where it can be; other steps, such as a short batch, are the eager function's.

    Compiled are the steps with k elements, once the optimiser has its state, which an eager step sets up. Another shape
    or dtype, training mode or option of the optimiser is compiled anew; the learning rate, the number of rows in the
    window and all that the distance does are not in the graph. Parameters have no `grad` afterwards, unless the
    optimiser is none of `mow.training.updates.RULES` or has hooks: then the graph gives them their gradients, and
    `optimizer.step()` is called as ever.

        >>> trainer = mow.Trainer(encoder, decoder, mow.CramerWold(), window, compile=True)
        >>> trainer.compiled.seconds        # nothing is compiled before there is a step
        0.0

    Args:
        optimizer: the step's.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self.seconds = optimizer, 0.0
        """What compiling has taken so far."""
        self.forget()
        optimizer.register_load_state_dict_post_hook(lambda optimizer: self._collect())

    def __repr__(self) -> str:
        return named(self, optimizer=optimizer_name(self._optimizer), seconds=self.seconds)

    def forget(self) -> None:
        """Compile the step anew: after a change of the modules' attributes or hooks, which is not noticed."""
        self._functions: dict[tuple[object, ...], Function] = {}
        self._modules: list[nn.Module] = []
        self._collect()

    def _collect(self) -> None:
        """Look anew for what the graph takes: the optimiser has other tensors now."""
        self._built: _Built | None = None
        self._key: tuple[object, ...] = ()
        self._after_eager = True
        self._steps: list[float] = []
        """How often the parameters of each of `together` have been updated."""

    def __call__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        distance: Distance,
        window: MovingWindow,
        optimizer: Optimizer,
        x: Tensor,
        *,
        k: int,
        weight: float,
        weighting: Weighting,
        root: bool,
        reencode: bool,
        measure: bool,
        scaler: GradScaler,
        exchange: Exchange,
        admits: Callable[[Tensor], bool] | None,
        total: int | None = None,
    ) -> dict[str, Tensor]:
        """A step; signature, result and errors of `mow.training.step.step`, in whose place the trainer calls it.

        Raises:
            RuntimeError: the step cannot be compiled. Nothing has changed.
        """
        again = reencode and k < window.n
        built = self._ready(encoder, decoder, optimizer, x, again) if len(x) == k else None
        if built is None:
            self._after_eager = True
            options: dict[str, Any] = {"k": k, "weight": weight, "weighting": weighting, "root": root}
            options |= {"reencode": reencode, "measure": measure, "scaler": scaler, "exchange": exchange}
            return step(encoder, decoder, distance, window, optimizer, x, **options, admits=admits, total=total)
        found: Slopes | None = None

        def between(z: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal found
            found = slopes(z, errors, distance, window, exchange, weight, weighting, root, measure, admits is not None)
            if admits is not None and not admits(found.health):
                raise Refused
            return found.g_z.to(z.dtype).contiguous(), found.g_errors.contiguous()

        if self._after_eager:
            clear_gradients(optimizer)
            first = [one.members[0] for one in built.together or ()]
            self._steps = [0.0] * len(first) if built.counts is None else built.counts[first].tolist()
            self._after_eager = False
        before = Buffers(encoder, decoder) if built.buffers and admits is not None else None  # as in the eager step
        try:
            _, _, *given = self._run(built, between, self._factors(built, optimizer), x)
            before = None
        except Refused:
            assert found is not None
            return found.results(len(x), distance, exchange, weighting, root)
        finally:
            if before is not None:
                before.restore()
        assert found is not None
        if built.together is None:
            for parameter, gradient in zip(built.trained, given, strict=True):
                parameter.grad = gradient
            optimizer.step()
            self._after_eager = True
            if again:
                with torch.no_grad(), Buffers(encoder):
                    given = [encoder(x)]
        else:
            if built.counts is not None:
                built.counts += 1
                self._steps = [steps + 1 for steps in self._steps]
            optimizer._opt_called = True  # type: ignore[attr-defined]  # what its step() tells PyTorch's schedulers
        if again:
            exchange.push(given[0], window)
        elif k < window.n:
            exchange.enter(found.rows, window)
        return found.results(len(x), distance, exchange, weighting, root)

    def _run(
        self, built: _Built, between: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], factors: Tensor, x: Tensor
    ) -> Sequence[Tensor]:
        """The graph with this in its middle.

        Raises:
            RuntimeError: there is no graph.
            What `between` raises; nothing has been written then, but buffers.
        """
        before, middle.between, middle.entered = getattr(middle, "between", None), between, False
        middle.error = None
        began = time.perf_counter()
        try:
            with torch.no_grad():
                return built.function(built.inputs, factors, x)
        except Exception as error:
            if middle.error is not None:
                raise middle.error from None
            if built.ran or middle.entered:
                raise
            self.forget()
            raise RuntimeError(
                f"compile is True and the step cannot be compiled; use compile=False ({type(error).__name__}: {error})"
            ) from error
        finally:
            middle.between, middle.error = before, None
            if not built.ran and middle.entered:
                built.ran = True
                self.seconds += time.perf_counter() - began

    def _factors(self, built: _Built, optimizer: Optimizer) -> Tensor:
        """What the learning rate and the number of steps come to, for each of `together`."""
        groups, both = optimizer.param_groups, zip(built.together or (), self._steps, strict=True)
        values = [one.rule.factors(groups[one.group], steps) for one, steps in both]
        if built.factors is None or built.factors[0] != values:
            like = built.trained[0]
            built.factors = values, torch.tensor(values, dtype=like.dtype, device=like.device)
        return built.factors[1]

    def _ready(
        self, encoder: nn.Module, decoder: nn.Module, optimizer: Optimizer, x: Tensor, again: bool
    ) -> _Built | None:
        """The compiled step for such elements; None while the optimiser lacks its state."""
        groups = optimizer.param_groups
        key = (
            (encoder, decoder, x.shape, x.stride(), x.dtype, again),
            [module.training for module in self._modules],
            [[value for name, value in group.items() if name not in ("params", "lr")] for group in groups],
            [parameter.requires_grad for group in groups for parameter in group["params"]],
            [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)],
        )
        if self._built is None or self._key != key:
            self._modules = [*encoder.modules(), *decoder.modules()]
            training = [module.training for module in self._modules]
            self._key, self._after_eager = (key[0], training, *key[2:]), True
            self._built = self._build(encoder, decoder, optimizer, x, again)
        return self._built

    def _build(
        self, encoder: nn.Module, decoder: nn.Module, optimizer: Optimizer, x: Tensor, again: bool
    ) -> _Built | None:
        groups, rules = _used(encoder, decoder, optimizer, x), rules_of(optimizer)
        trained = list(groups)
        buffers = list(dict.fromkeys(buffer for module in (encoder, decoder) for buffer in module.buffers()))
        together: list[Together] | None = None
        state: list[list[Tensor]] = []
        counts: Tensor | None = None
        if rules is not None:
            kept = [(optimizer.state.get(parameter, {}), rules[group]) for parameter, group in groups.items()]
            if any(not isinstance(one.get(name), Tensor) for one, rule in kept for name in rule.reads):
                return None
            state = [[one[name] for name in rule.reads] for one, rule in kept]
            if trained and all(rule.counts for rule in rules):
                counts = torch.stack([one["step"] for one, _ in kept])
                for (one, _), count in zip(kept, counts, strict=True):
                    one["step"] = count  # a view, so that one addition is enough for all
            updated = [0.0] * len(trained) if counts is None else counts.tolist()
            alike: dict[tuple[int, float], list[int]] = {}
            for index, place in enumerate(zip(groups.values(), updated, strict=True)):
                alike.setdefault(place, []).append(index)
            together = [Together(group, tuple(members), rules[group]) for (group, _), members in alike.items()]
        if not trained:
            return None
        traced = repr(self._key[1:]), tuple(map(id, trained)), None if together is None else tuple(together)
        key = (*self._key[0], *traced)  # type: ignore[misc]  # mypy takes the declared tuple for any iterable
        if ran := key in self._functions:
            function = self._functions[key]
        else:
            where = {parameter: index for index, parameter in enumerate(trained)}
            at = {buffer: index for index, buffer in enumerate(buffers)}
            encode, decode = (Network(module, where, at) for module in (encoder, decoder))
            sizes = len(trained), len(buffers), *map(len, state)
            whole = traceable(encode, decode, sizes, together, again)
            function = self._functions[key] = CompiledGraph(whole, len(trained) + len(buffers))
        inputs = [*trained, *buffers, *itertools.chain(*state)]
        return _Built(function, trained, inputs, len(buffers), together, counts, ran)


def _used(encoder: nn.Module, decoder: nn.Module, optimizer: Optimizer, x: Tensor) -> dict[Tensor, int]:
    """The parameters that have a gradient and the group of each, by passes that leave no trace.

    Raises:
        TypeError, ValueError: what the networks give is not what a step takes, as in the eager one.
    """
    groups = {p: index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    parameters = [parameter for parameter in groups if parameter.requires_grad]
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices), Buffers(encoder, decoder), torch.enable_grad():
        z = output("encoder", encoder(x), 2, LATENTS)
        errors = squared_errors(decoder(z), x)
        cost = errors.sum() + z.sum()
        if not cost.requires_grad:
            return {}
        gradients = torch.autograd.grad(cost, parameters, allow_unused=True)
    return {p: groups[p] for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def check_compile(cuda_graph: bool, scaler: GradScaler | None, exchange: Exchange | None) -> None:
    """Raises ValueError for what a compiled step cannot be had with."""
    for there, other in (
        (cuda_graph, "cuda_graph True, which captures the eager step"),
        (scaler is not None, "there is a scaler, which looks at the gradients"),
        (exchange is not None, "there is an exchange, whose collectives are not compiled"),
    ):
        if there:
            raise ValueError(f"compile is True and {other}; use one of the two")
