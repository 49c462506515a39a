"""A whole step as one graph of torch.compile: encode, decode, backward, the optimiser's update, encode again.

The distance stays as it is, one opaque operation in the middle of the graph, so that whatever it keeps, counts or draws
is as in the eager step, as are weighting and the look at what is not finite. The update reads the gradients where they
arise: that of a linear layer's weights, [out, k] times [k, in], is a sum of k outer products, which the graph computes
in the update's own loop and never writes to memory, while an eager step writes it, reads it and frees it.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.func import functional_call, vjp
from torch.fx import Graph
from torch.optim import SGD, Adam, AdamW, Optimizer

from mow.checks import output
from mow.naming import named, optimizer_name
from mow.training.buffers import Buffers
from mow.training.exchange import Exchange
from mow.training.step import LATENTS, Slopes, clear_gradients, slopes, squared_errors, step
from mow.training.weighting import Weighting
from mow.window.distances import Distance
from mow.window.window import MovingWindow

OUTER_PRODUCTS = 8
"""Up to so many rows, a product of matrices [a, rows] and [rows, b] is a sum of outer products to the compiler, which
then fuses it with what reads it."""


# The optimisers whose update is in the graph


@dataclass(frozen=True)
class SGDRule:
    """The update of `torch.optim.SGD`."""

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool

    counts: ClassVar[bool] = False
    """Whether the update depends on how many there were, which the optimiser keeps as "step"."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def factors(self, group: Mapping[str, Any], steps: float) -> tuple[float, ...]:
        return (-float(group["lr"]),)

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
        if self.maximize:
            g = -g
        if self.weight_decay:
            g = g + self.weight_decay * p
        if not self.momentum:
            return [p + factors[0] * g]
        buffer = self.momentum * state[0] + (1 - self.dampening) * g
        return [p + factors[0] * (g + self.momentum * buffer if self.nesterov else buffer), buffer]


@dataclass(frozen=True)
class AdamRule:
    """The update of `torch.optim.Adam`, and with decoupled weight decay of `AdamW`."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool
    maximize: bool
    decoupled_weight_decay: bool

    counts: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.amsgrad

    def factors(self, group: Mapping[str, Any], steps: float) -> tuple[float, ...]:
        """Both bias corrections, by which no element has to be divided then, and the decay."""
        (beta1, beta2), lr = self.betas, float(group["lr"])
        decay = 1 - lr * self.weight_decay
        return -lr / (1 - beta1 ** (steps + 1)), (1 - beta2 ** (steps + 1)) ** -0.5, decay

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
        size, correction, decay = factors
        if self.maximize:
            g = -g
        if self.weight_decay:
            p, g = (p * decay, g) if self.decoupled_weight_decay else (p, g + self.weight_decay * p)
        mean, square, *most = state
        mean = mean + (1 - self.betas[0]) * (g - mean)
        square = self.betas[1] * square + (1 - self.betas[1]) * g * g
        most = [torch.maximum(each, square) for each in most]
        return [p + size * (mean / ((most or [square])[0].sqrt() * correction + self.eps)), mean, square, *most]


Rule = SGDRule | AdamRule
RULES: dict[type[Optimizer], type[SGDRule] | type[AdamRule]] = {SGD: SGDRule, Adam: AdamRule, AdamW: AdamRule}
"""Of other optimisers, and of their subclasses, the graph gives the gradients and `step()` does the rest."""


def rules_of(optimizer: Optimizer) -> list[Rule] | None:
    """The rule of each of its groups; None where only its `step()` knows what it does."""
    kind = RULES.get(type(optimizer))
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if kind is None or hooked or any(group["differentiable"] for group in optimizer.param_groups):
        return None
    names = [field.name for field in dataclasses.fields(kind)]
    return [kind(**{name: group[name] for name in names}) for group in optimizer.param_groups]


# The graph


class Refused(Exception):
    """The step is not taken. Leaves the graph before anything is written."""


_thread = threading.local()
_library = torch.library.Library("mow", "FRAGMENT")
_library.define("between(Tensor z, Tensor errors) -> (Tensor, Tensor)")
_library.impl("between", torch.library.fallthrough_kernel, "Autograd")  # a distance may use autograd within


@torch.library.impl(_library, "between", "CompositeExplicitAutograd")
def _between(z: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    _thread.entered = True
    try:
        return _thread.between(z, errors)
    except BaseException as error:
        _thread.error = error  # C++ lies between this and the caller, and would make a RuntimeError of it
        raise


@torch.library.register_fake("mow::between", lib=_library)
def _between_fake(z: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), errors.new_empty(errors.shape)


class _Network:
    """A network as a function of its parameters and buffers, some of which it may share with the other one."""

    def __init__(self, module: nn.Module, trained: Mapping[Tensor, int], buffers: Mapping[Tensor, int]) -> None:
        self.module = module
        parameters = module.named_parameters(remove_duplicate=False)
        self.trained = {name: trained[p] for name, p in parameters if p in trained}
        self.buffers = {name: buffers[b] for name, b in module.named_buffers(remove_duplicate=False) if b in buffers}

    def __call__(self, trained: Sequence[Tensor], buffers: Sequence[Tensor], x: Tensor) -> Tensor:
        values = {name: trained[index] for name, index in self.trained.items()}
        values.update({name: buffers[index] for name, index in self.buffers.items()})
        result: Tensor = functional_call(self.module, values, (x,))
        return result


class _Together(NamedTuple):
    """Parameters that are updated alike."""

    group: int
    """Of the optimiser."""
    members: tuple[int, ...]
    """Which of the trained ones."""
    rule: Rule


@dataclass
class _Built:
    """A compiled step, and what it takes beside the elements."""

    function: Callable[..., tuple[Tensor | None, Sequence[Tensor]]]
    trained: list[Tensor]
    state: list[list[Tensor]]
    """What the optimiser keeps of each of them, as far as the update reads it."""
    buffers: list[Tensor]
    together: list[_Together] | None
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
    optimiser is none of `RULES` or has hooks: then the graph gives them their gradients, and `optimizer.step()` is
    called as ever.

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
        self._functions: dict[tuple[object, ...], Callable[..., Any]] = {}
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
            z = z.clone()  # the graph uses the memory again
            found = slopes(z, errors, distance, window, exchange, weight, weighting, root, measure, admits is not None)
            if admits is not None and not admits(found.health):
                raise Refused
            return found.g_z.to(z.dtype).contiguous(), found.g_errors.contiguous()

        if self._after_eager:
            clear_gradients(optimizer)
            first = [one.members[0] for one in built.together or ()]
            self._steps = [0.0] * len(first) if built.counts is None else built.counts[first].tolist()
            self._after_eager = False
        try:
            latents, gradients = self._run(built, between, self._factors(built, optimizer), x)
        except Refused:
            assert found is not None
            return found.results(len(x), distance, exchange, weighting, root)
        assert found is not None
        if built.together is None:
            for parameter, gradient in zip(built.trained, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            self._after_eager = True
            if again:
                with torch.no_grad(), Buffers(encoder):
                    latents = encoder(x)
        else:
            if built.counts is not None:
                built.counts += 1
                self._steps = [steps + 1 for steps in self._steps]
            optimizer._opt_called = True  # type: ignore[attr-defined]  # what its step() tells PyTorch's schedulers
        if again:
            assert latents is not None
            exchange.push(latents, window)
        elif k < window.n:
            exchange.enter(found.rows, window)
        return found.results(len(x), distance, exchange, weighting, root)

    def _run(
        self, built: _Built, between: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], factors: Tensor, x: Tensor
    ) -> tuple[Tensor | None, Sequence[Tensor]]:
        """The graph with this in its middle.

        Raises:
            RuntimeError: there is no graph.
            What `between` raises; nothing has been written then, but buffers.
        """
        before, _thread.between, _thread.entered = getattr(_thread, "between", None), between, False
        _thread.error = None
        began = time.perf_counter()
        try:
            with torch.no_grad():
                return built.function(built.trained, built.state, built.buffers, factors, x)
        except Exception as error:
            if _thread.error is not None:
                raise _thread.error from None
            if built.ran or _thread.entered:
                raise
            self.forget()
            raise RuntimeError(
                f"compile is True and the step cannot be compiled; use compile=False ({type(error).__name__}: {error})"
            ) from error
        finally:
            _thread.between, _thread.error = before, None
            if not built.ran and _thread.entered:
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
            (encoder, decoder, x.shape, x.dtype, again),
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
        together: list[_Together] | None = None
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
            together = [_Together(group, tuple(members), rules[group]) for (group, _), members in alike.items()]
        if not trained:
            return None
        traced = repr(self._key[1:]), tuple(map(id, trained)), None if together is None else tuple(together)
        key = (*self._key[0], *traced)  # type: ignore[misc]  # mypy takes the declared tuple for any iterable
        if ran := key in self._functions:
            function = self._functions[key]
        else:
            where = {parameter: index for index, parameter in enumerate(trained)}
            at = {buffer: index for index, buffer in enumerate(buffers)}
            encode, decode = (_Network(module, where, at) for module in (encoder, decoder))
            function = self._functions[key] = compiled(_traceable(encode, decode, together, again))
        return _Built(function, trained, state, buffers, together, counts, ran)


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


def _traceable(
    encode: _Network, decode: _Network, together: list[_Together] | None, again: bool
) -> Callable[..., tuple[Tensor | None, Sequence[Tensor]]]:
    """The step as a function of all that it reads and writes, but for the distance."""

    def whole(
        trained: list[Tensor], state: list[list[Tensor]], buffers: list[Tensor], factors: Tensor, x: Tensor
    ) -> tuple[Tensor | None, Sequence[Tensor]]:
        def forward(trained: list[Tensor]) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
            now = [buffer.clone() for buffer in buffers]
            z = encode(trained, now, x)
            return (z, squared_errors(decode(trained, now, z), x)), now

        (z, errors), pull, now = vjp(forward, trained, has_aux=True)  # type: ignore[misc]  # has_aux gives three, the stubs two
        (gradients,) = pull(torch.ops.mow.between(z, errors))
        for buffer, value in zip(buffers, now, strict=True):
            buffer.copy_(value)
        if together is None:
            return None, gradients
        for index, one in enumerate(together):
            for member in one.members:
                p, kept = trained[member], state[member]
                values = one.rule.update(p, gradients[member], kept, factors[index].unbind())
                for written, value in zip((p, *kept), values, strict=True):
                    written.copy_(value)
        return encode(trained, [buffer.clone() for buffer in buffers], x) if again else None, ()

    return whole


WATCHED = (
    *("TENSOR_MATCH", "GLOBAL_STATE", "GRAD_MODE", "DETERMINISTIC_ALGORITHMS", "TORCH_FUNCTION_STATE"),
    *("DEFAULT_DEVICE", "FUNCTORCH_STACK_MATCH", "AUTOGRAD_SAVED_TENSORS_HOOKS"),
)
"""What torch.compile looks at before each step, of the hundreds of things that it knows of the modules' insides."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile of a function, by a code object of its own: there is a limit to what is compiled of one."""
    code, kept = function.__code__.replace(), function.__closure__
    own = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, kept)
    guards: dict[str, Any] = {"guard_filter_fn": lambda guards: [guard.guard_type in WATCHED for guard in guards]}
    return torch.compile(own, backend=_backend, fullgraph=True, dynamic=False, options=guards)


def _backend(graph: Any, inputs: Any, options: Any = None) -> Any:
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner  # which take seconds to import

    def inner(graph: Any, *further: Any, **options: Any) -> Any:
        read_where_it_is_written(graph.graph)
        graph.recompile()
        return compile_fx_inner(graph, *further, **options)

    return compile_fx(
        graph, inputs, inner_compile=inner, config_patches={"cpp_wrapper": True}, decompositions=_decompositions()
    )


def read_where_it_is_written(graph: Graph) -> None:
    """What reads a new value of an input, such as the pass that encodes again, reads it from the input's own memory.

    Else the graph would write the weights twice: for itself, and in the end to where they belong.
    """
    copy, order = torch.ops.aten.copy_.default, {node: place for place, node in enumerate(graph.nodes)}
    for node in [node for node in graph.nodes if node.target is copy and node.args[0].op == "placeholder"]:
        to, value = node.args[:2]
        if all(order[user] < order[value] for user in to.users if user not in (node, value)):
            value.append(node)
            value.replace_all_uses_with(node, delete_user_cb=lambda user, node=node: user is not node)


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Inductor's, products over few rows as sums of outer products, and a row times a matrix as sums that the graph's
    own code computes together with what follows."""
    from torch._inductor.decomposition import select_decomp_table

    table = dict(select_decomp_table())
    own = table.get(torch.ops.aten.mm.default)

    def mm(a: Tensor, b: Tensor, *further: Any, **options: Any) -> Any:
        rows = a.shape[1]
        if a.device.type == "cpu" and 1 <= rows <= (OUTER_PRODUCTS if a.dtype in _WIDE else 1) and a.shape[0] > rows:
            return sum(a[:, i : i + 1] * b[i : i + 1] for i in range(rows))
        return NotImplemented if own is None else own(a, b, *further, **options)

    own_addmm = table.get(torch.ops.aten.addmm.default)

    def addmm(bias: Tensor, a: Tensor, b: Tensor, **options: Any) -> Any:
        if a.device.type == "cpu" and a.shape[0] == 1 and a.dtype in _WIDE and not options and b.stride(0) == 1:
            return ((a * b.t()).sum(1) + bias).unsqueeze(0)
        return NotImplemented if own_addmm is None else own_addmm(bias, a, b, **options)

    return {**table, torch.ops.aten.mm.default: mm, torch.ops.aten.addmm.default: addmm}


_WIDE = (torch.float32, torch.float64)


def check_compile(cuda_graph: bool, scaler: GradScaler | None, exchange: Exchange | None) -> None:
    """Raises ValueError for what a compiled step cannot be had with."""
    for there, other in (
        (cuda_graph, "cuda_graph True, which captures the eager step"),
        (scaler is not None, "there is a scaler, which looks at the gradients"),
        (exchange is not None, "there is an exchange, whose collectives are not compiled"),
    ):
        if there:
            raise ValueError(f"compile is True and {other}; use one of the two")
