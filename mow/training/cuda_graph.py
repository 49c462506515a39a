"""A whole step as one CUDA graph: for a training encode, distance, decode, backward, optimiser and push in one launch.

At k = 1 a step is many small kernels, each of which the host has to launch; a graph has them launched at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

T = TypeVar("T")

WARM_UP = 3
"""Steps that run eagerly, on a stream of their own, before one is captured: libraries, tables and the optimiser's state
set themselves up in them. They are ordinary steps of the training."""


class Capture(Protocol):
    """Records the work of a function on the device, to repeat it on the same memory."""

    def warm_up(self, step: Callable[[], T]) -> T:
        """Runs it where it will be recorded."""
        ...

    def record(self, step: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Records it without running it. -> what repeats it, and the tensors that each repetition writes.

        Raises:
            RuntimeError: something in it cannot be recorded. Nothing has changed on the device, but what was recorded
                before must not be repeated any more: its random numbers are no longer those of the generators.
        """
        ...


class CudaGraphs:
    """`Capture` by torch.cuda.CUDAGraph. Its graphs share their memory, and must not run at the same time.

    Args:
        device: on which the step runs.
        generators: from which it draws, beside PyTorch's default generator. Every replay goes on where the draw before
            it ended, as an eager step would.

    Raises:
        ValueError: the device or a generator's is no CUDA device.
    """

    def __init__(self, device: torch.device, generators: list[torch.Generator]) -> None:
        if device.type != "cuda":
            raise ValueError(f"cuda_graph is True and the window is on {device}; it must be on a CUDA device")
        for generator in generators:
            if generator.device.type != "cuda":
                raise ValueError(
                    f"cuda_graph is True and a generator of the distance on {generator.device}; "
                    "it must be on the window's device (or None for PyTorch's own)"
                )
        self._generators, self._pool = generators, torch.cuda.graph_pool_handle()
        self._device, self._side = device, torch.cuda.Stream(device)
        self._default = torch.cuda.default_generators[self._side.device_index]

    def warm_up(self, step: Callable[[], T]) -> T:
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            result = step()
        current.wait_stream(self._side)
        return result

    def record(self, step: Callable[[], T]) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        before = [(generator, generator.clone_state()) for generator in (self._default, *self._generators)]
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.stream(torch.cuda.current_stream(self._device)):  # comes back also where the capture fails
                with torch.cuda.graph(graph, pool=self._pool, stream=self._side):
                    result = step()
        except BaseException:
            for generator, state in before:  # its own is still being captured, and refuses every draw
                generator.graphsafe_set_state(state)
            self._pool = torch.cuda.graph_pool_handle()  # that of the failed capture takes no other one
            raise
        return graph.replay, result


class _Recorded(NamedTuple):
    """A step that can be repeated, and what each repetition of it gives."""

    replay: Callable[[], None]
    names: tuple[str, ...]
    values: Tensor
    """The results, by these names."""
    gradients: list[tuple[nn.Parameter, Tensor]]
    """The gradients that it writes."""


class GraphedStep:
    """A step, from a graph where it can be.

        >>> window = mow.MovingWindow(64, 8).cuda()        # doctest: +SKIP
        >>> trainer = mow.Trainer(encoder, decoder, mow.CramerWold(), window, cuda_graph=True)        # doctest: +SKIP
        >>> trainer.graph        # doctest: +SKIP

    It is captured after `WARM_UP` eager steps that repeat each other. The others, such as the short batch that ends a
    pass, run eagerly in between, on the same state. When something changes that the step reads on the host (the
    options, a learning rate that is no tensor, training mode, the memory of a module) or the optimiser loads a state,
    everything begins anew. Other attributes of the modules are not watched: call `forget()` after changing one.

    Args:
        step: from elements on the device, and whether to measure, to 0-d results by name, the same names each time.
        optimizer: the step's; it is `SGD` or has capturable=True.
        device: of the step.
        generators: from which the step draws, beside PyTorch's default generator.
        modules: whose parameters, buffers and training mode the step uses.
        options: what else it reads on the host.
        repeats: whether the step with these elements is one of those that repeat each other.

    Raises:
        ValueError: the device, a generator's or the optimiser does not allow it.
    """

    def __init__(
        self,
        step: Callable[[Tensor, bool], dict[str, Tensor]],
        optimizer: Optimizer,
        *,
        device: torch.device,
        generators: list[torch.Generator],
        modules: Callable[[], Iterable[nn.Module]],
        options: Callable[[], object],
        repeats: Callable[[Tensor], bool],
    ) -> None:
        self._step, self._optimizer, self._device = step, optimizer, device
        self._modules, self._options, self._repeats = modules, options, repeats
        self._capture: Capture = CudaGraphs(device, generators)
        _check_optimizer(optimizer)
        optimizer.register_load_state_dict_pre_hook(_still_capturable)
        optimizer.register_load_state_dict_post_hook(lambda optimizer: self.forget())
        self.forget()

    def __repr__(self) -> str:
        return f"GraphedStep(optimizer={type(self._optimizer).__name__}, graphs={len(self._recorded)})"

    def forget(self) -> None:
        """Capture the step anew, after further `WARM_UP` eager ones."""
        self._recorded: dict[bool, _Recorded] = {}
        self._warm = dict.fromkeys((False, True), 0)
        self._x: Tensor | None = None
        self._seen = self._state()

    def __call__(self, x: Tensor, measure: bool) -> dict[str, Tensor]:
        """What the step returns; x may also be on the host.

        Raises:
            RuntimeError: the step cannot be captured. Weights, window and generators are as they were, and the step can
                go on eagerly; the message says what cannot be undone.
            What the step itself raises.
        """
        if not self._repeats(x):
            return self._step(x.to(self._device), measure)
        if self._seen != self._state():
            self.forget()
        if self._x is None:
            self._x = torch.empty_like(x, device=self._device)
        elif x.shape != self._x.shape or x.dtype != self._x.dtype:
            return self._step(x.to(self._device), measure)
        self._x.copy_(x, non_blocking=True)
        if self._warm[measure] < WARM_UP:
            results = self._capture.warm_up(functools.partial(self._step, self._x, measure))
            self._warm[measure] += 1
            return results
        recorded = self._recorded.get(measure) or self._record(self._x, measure)
        recorded.replay()
        if recorded.gradients and recorded.gradients[0][0].grad is not recorded.gradients[0][1]:
            for parameter, gradient in recorded.gradients:  # another step was the last one to set them
                parameter.grad = gradient
        return dict(zip(recorded.names, recorded.values.clone().unbind(), strict=True))

    def _record(self, x: Tensor, measure: bool) -> _Recorded:
        names: tuple[str, ...] = ()

        def step() -> Tensor:
            nonlocal names
            results = self._step(x, measure)
            names = tuple(results)
            return torch.stack(list(results.values()))

        try:
            replay, values = self._capture.record(step)
        except BaseException as error:
            self._optimizer.zero_grad()
            self.forget()
            if not isinstance(error, RuntimeError):
                raise
            raise RuntimeError(
                "cuda_graph is True and the step cannot be captured: something in it waits for the device, copies from "
                f"the host or depends on values ({error}); use cuda_graph=False. Two things cannot be undone: the "
                "memory of the attempt stays taken until the process ends, and CUDA graphs captured elsewhere that "
                "draw from the same generators have to be captured anew"
            ) from error
        parameters = [parameter for module in self._modules() for parameter in module.parameters()]
        gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        self._recorded[measure] = _Recorded(replay, names, values, gradients)
        return self._recorded[measure]

    def _state(self) -> tuple[object, ...]:
        """What a capture freezes: differs after a change of anything that the step reads on the host."""
        modules = tuple(self._modules())
        return (
            self._options(),
            [module.training for module in modules],
            [
                (name, id(value) if isinstance(value, Tensor) else value)
                for group in self._optimizer.param_groups
                for name, value in group.items()
                if name != "params"
            ],
            [x.data_ptr() for module in modules for part in (module.parameters(), module.buffers()) for x in part],
        )


def _check_optimizer(optimizer: Optimizer) -> None:
    """Raises ValueError unless all that the optimiser's step changes is in tensors on the device."""
    if not isinstance(optimizer, SGD) and not all(group.get("capturable") for group in optimizer.param_groups):
        raise ValueError(
            f"cuda_graph is True and the optimizer {type(optimizer).__name__}; "
            "it must be SGD or one with capturable=True"
        )


def _still_capturable(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """capturable is an option, but comes with the state and says on which device the steps are counted. A learning rate
    in a tensor stays in one, where a scheduler changes it between the replays."""
    groups = []
    for group, own in zip(state["param_groups"], optimizer.param_groups, strict=False):
        group = {**group, "capturable": True} if "capturable" in group else dict(group)
        if isinstance(own["lr"], Tensor):
            group["lr"] = torch.as_tensor(group["lr"]).to(own["lr"])
        groups.append(group)
    return {**state, "param_groups": groups + state["param_groups"][len(groups) :]}
