"""The graph of a whole step: what torch.compile is given, what it makes of it, and how that is called.

The distance stays as it is, one opaque operation in the middle of the graph. The update reads the gradients where they
arise: that of a linear layer's weights, [out, k] times [k, in], is a sum of k outer products, which the graph computes
in the update's own loop and never writes to memory, while an eager step writes it, reads it and frees it.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.fx import Graph

from mow.training.step import squared_errors
from mow.training.updates import Rule

OUTER_PRODUCTS = 8
"""Up to so many rows, a product of matrices [a, rows] and [rows, b] is a sum of outer products to the compiler, which
then fuses it with what reads it."""

Function = Callable[[list[Tensor], Tensor, Tensor], Sequence[Tensor]]
"""A step as a function of the tensors that live on, the factors of the updates, and the new elements. It gives what its
middle was given, whose memory the graph would use again else, and either the latents under the new weights, if they are
wanted, or the gradients that an optimiser has yet to take."""


# Its middle

middle = threading.local()
"""What the operation does in this thread, `between`, and how that went."""

_library = torch.library.Library("mow", "FRAGMENT")
_library.define("between(Tensor z, Tensor errors) -> (Tensor, Tensor)")
_library.impl("between", torch.library.fallthrough_kernel, "Autograd")  # a distance may use autograd within


@torch.library.impl(_library, "between", "CompositeExplicitAutograd")
def _between(z: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    middle.entered = True
    try:
        return middle.between(z, errors)
    except BaseException as error:
        middle.error = error  # C++ lies between this and the caller, and would make a RuntimeError of it
        raise


@torch.library.register_fake("mow::between", lib=_library)
def _between_fake(z: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), errors.new_empty(errors.shape)


# What is compiled


class Network:
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


class Together(NamedTuple):
    """Parameters that are updated alike."""

    group: int
    """Of the optimiser."""
    members: tuple[int, ...]
    """Which of the trained ones."""
    rule: Rule


def traceable(
    encode: Network, decode: Network, sizes: Sequence[int], together: list[Together] | None, again: bool
) -> Function:
    """The step as a function of all that it reads and writes, but for the distance.

    Args:
        encode, decode: the networks.
        sizes: of the function's list of tensors: how many are parameters, how many after them buffers, and how many
            the optimiser then keeps of the first parameter, of the second, ...
        together: the parameters' updates; None to return the gradients.
        again: encode the elements once more in the end.
    """

    def whole(inputs: list[Tensor], factors: Tensor, x: Tensor) -> Sequence[Tensor]:
        rest = iter(inputs)
        trained, buffers, *state = ([next(rest) for _ in range(size)] for size in sizes)

        def forward(trained: list[Tensor]) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
            now = [buffer.clone() for buffer in buffers]
            z = encode(trained, now, x)
            return (z, squared_errors(decode(trained, now, z), x)), now

        (z, errors), pull, now = vjp(forward, trained, has_aux=True)  # type: ignore[misc]  # has_aux gives three, the stubs two
        (gradients,) = pull(torch.ops.mow.between(z, errors))
        for buffer, value in zip(buffers, now, strict=True):
            buffer.copy_(value)
        if together is None:
            return z, errors, *gradients
        updates = [
            (member, one.rule, row.unbind())
            for one, row in zip(together, factors.unbind(), strict=True)
            for member in one.members
        ]
        # The compiler writes down what reads a tensor before that is written. So the largest come first: a matrix's
        # gradient may read a bias, through the layer's output, and a bias's reads no matrix.
        updates.sort(key=lambda update: -trained[update[0]].numel())
        for member, rule, row in updates:
            p, kept = trained[member], state[member]
            values = rule.update(p, gradients[member], kept, row)
            for written, value in zip((p, *kept), values, strict=True):
                written.copy_(value)
        return (z, errors, encode(trained, [buffer.clone() for buffer in buffers], x)) if again else (z, errors)

    return whole


# The compiler


def inductor(graph: Any, inputs: Any) -> Any:
    """Inductor's code for a graph of torch.compile."""
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner  # which take seconds to import

    def inner(graph: Any, *further: Any, **options: Any) -> Any:
        read_where_it_is_written(graph.graph)
        graph.recompile()
        return compile_fx_inner(graph, *further, **options)

    # On a CPU it would bring the weights of convolutions into another layout at each step: half as long again as the
    # eager step of the paper's Fashion-MNIST networks takes at k = 1.
    patches = {"cpp_wrapper": True} | ({} if any(each.is_cuda for each in inputs) else {"layout_optimization": False})
    return compile_fx(graph, inputs, inner_compile=inner, config_patches=patches, decompositions=_decompositions())


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
            return functools.reduce(torch.add, (a[:, i : i + 1] * b[i : i + 1] for i in range(rows)))
        return NotImplemented if own is None else own(a, b, *further, **options)

    own_addmm = table.get(torch.ops.aten.addmm.default)

    def addmm(bias: Tensor, a: Tensor, b: Tensor, **options: Any) -> Any:
        if a.device.type == "cpu" and a.shape[0] == 1 and a.dtype in _WIDE and not options and b.stride(0) == 1:
            return ((a * b.t()).sum(1) + bias).unsqueeze(0)
        return NotImplemented if own_addmm is None else own_addmm(bias, a, b, **options)

    return {**table, torch.ops.aten.mm.default: mm, torch.ops.aten.addmm.default: addmm}


_WIDE = (torch.float32, torch.float64)


# The call

WATCHED = (
    *("TENSOR_MATCH", "GLOBAL_STATE", "GRAD_MODE", "DETERMINISTIC_ALGORITHMS", "TORCH_FUNCTION_STATE"),
    *("DEFAULT_DEVICE", "FUNCTORCH_STACK_MATCH", "AUTOGRAD_SAVED_TENSORS_HOOKS"),
)
"""What torch.compile looks at before a call, of the hundreds of things that it knows of the modules' insides."""


class CompiledGraph:
    """A function by torch.compile, which is asked only where something may have changed.

    Its own way into the graph, with a look at each tensor, takes as long as the distance. It is passed by while the
    same list of tensors comes, what the modules own lies where it lay, and PyTorch's settings are the same. `x` always
    has the same shape, strides, dtype and device.

    Args:
        owned: how many at the beginning of the list the modules own, who may be given other memory (`.to()`).
    """

    def __init__(self, function: Function, owned: int) -> None:
        # by a code object of its own: there is a limit to what is compiled of one
        code, closure = function.__code__.replace(), function.__closure__
        own = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
        options: dict[str, Any] = {"guard_filter_fn": lambda guards: [guard.guard_type in WATCHED for guard in guards]}
        self._asked = torch.compile(own, backend=self._backend, fullgraph=True, dynamic=False, options=options)
        self._owned = owned
        self._call: tuple[Callable[..., Sequence[Tensor]], Sequence[Tensor], Sequence[Tensor]] | None = None
        """The last one that was asked for: the compiler's function, its arguments and what it gave."""
        self._inputs: list[Tensor] | None = None
        """The list for which there is a way that passes torch.compile by."""
        self._watched: list[Tensor] = []

    def __call__(self, inputs: list[Tensor], factors: Tensor, x: Tensor) -> Sequence[Tensor]:
        if inputs is self._inputs and self._looked() == self._before:
            arguments = self._arguments.copy()
            for place, value in zip(self._places, (factors, x), strict=True):
                if place is not None:
                    arguments[place] = value
            return self._function(*arguments)
        self._call = self._inputs = None
        results: Sequence[Tensor] = self._asked(inputs, factors, x)
        if self._call is not None:
            self._learn(inputs, factors, x, results)
        return results

    def _backend(self, graph: Any, inputs: Any, options: Any = None) -> Callable[..., Any]:
        function = inductor(graph, inputs)

        def noted(*arguments: Any) -> Any:
            found = function(*arguments)
            self._call = function, arguments, found
            return found

        return noted

    def _learn(self, inputs: list[Tensor], factors: Tensor, x: Tensor, results: Sequence[Tensor]) -> None:
        """From the call that was asked for: which of its arguments change from one to the next."""
        assert self._call is not None
        (function, arguments, found), self._call = self._call, None
        places = {id(each): place for place, each in enumerate(arguments)}
        known = {id(each) for each in (*inputs, factors, x)}
        if not places.keys() <= known or [*map(id, found)] != [*map(id, results)]:
            return  # a subclass of tensors, which torch.compile takes apart
        self._function = function
        self._places = places.get(id(factors)), places.get(id(x))
        self._arguments = list(arguments)
        self._settings = torch._C._dynamo.guards.GlobalStateGuard()
        self._inputs, self._watched = inputs, inputs[: self._owned]
        self._before = self._looked()

    def _looked(self) -> tuple[object, ...]:
        """What has to be as it was."""
        return (
            [each.data_ptr() for each in self._watched],
            self._settings.check(),
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
        )
