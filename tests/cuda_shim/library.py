"""The CUDA kernels compiled for the CPU (cuda_runtime.h beside this file), as functions on CPU tensors."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock  # PyTorch needs it as well
from torch import Tensor

import mow_kernels as mk
from mow_kernels import native, registry, ring
from mow_kernels.registry import OPS, Implementation

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).parent
KERNELS = sorted((ROOT / "csrc/cuda").glob("*.cu"))
DEVICE = [SHIM / "shim.cpp", SHIM / "tensor_cores.cpp", SHIM / "warpgroups.cpp"]
"""What stands in for it."""
FLAGS = ("-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror")
FLAGS += ("-fno-gnu-unique",)  # a library that is loaded from another file has state of its own
FLAGS += (f"-I{SHIM}", f"-I{ROOT / 'csrc'}")

compiler = shutil.which("g++") or shutil.which("c++")


def build(name: str, sources: list[Path], *flags: str, libraries: Sequence[Path] = ()) -> Path:
    """Compiles and links into build/cuda_shim/, unless that has been done with the same sources."""
    headers = [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cuh"), *SHIM.glob("*.h")]
    digest = hashlib.sha256(repr((flags, FLAGS, libraries)).encode())
    for path in sorted({*sources, *headers}):
        digest.update(path.read_bytes())
    target = ROOT / "build/cuda_shim" / digest.hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):  # several processes may want it at a time
        return target if target.exists() else _build(target, sources, flags, libraries)


def _build(target: Path, sources: list[Path], flags: tuple[str, ...], libraries: Sequence[Path]) -> Path:
    partial = target.with_suffix(".partial")
    command = [str(compiler), *FLAGS, *flags, "-x", "c++", *map(str, sources), "-x", "none", *map(str, libraries)]
    command += ["-o", str(partial)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    partial.replace(target)
    return target


def kernels() -> Path:
    """All of them and the stand-in, as a shared library."""
    sources = [*KERNELS, *DEVICE, SHIM / "ops.cpp", SHIM / "arithmetic.cpp"]
    aligned = ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")  # as a device's loads have to be
    return build("kernels.so", sources, "-O1", "-shared", "-fPIC", *aligned)


@functools.cache
def _load(variables: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """Of a file of its own for all variables, which the library reads once."""
    library = kernels()
    if variables:
        library = library.with_name(f"kernels-{hashlib.sha256(repr(variables).encode()).hexdigest()[:16]}.so")
        with FileLock(library.with_suffix(".lock")):
            if not library.exists():
                shutil.copy(kernels(), library)
    return ctypes.CDLL(str(library))


VARIABLES: dict[str, str] = {}
"""The environment of the kernels, where it is not this process's own."""


def load() -> ctypes.CDLL:
    return _load(tuple(sorted(VARIABLES.items())))


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Within it the kernels run with these variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
            patch.setitem(VARIABLES, name, value)
        yield


def turn(*, major: int = 9, order: int = 0) -> None:
    """The device's compute capability; blocks and threads take turns 0 ascending, 1 descending, 2 the blocks
    shuffled and the odd threads first."""
    load().cuda_shim_turn(major, order)


def _call(
    name: str,
    current: Tensor,
    history: Tensor | mk.Newest,
    prior: Tensor | None,
    needs_grad: bool,
    *rest: Any,
    measured: bool = True,
) -> tuple:
    numbers, ring = [], [0, 0]
    if isinstance(history, mk.Newest):
        history, ring = history.slots, [history.count, history.head.data_ptr()]
    for rows in (current, history, prior):
        numbers += [0, 0, 0, 0] if rows is None else [rows.data_ptr(), rows.shape[0], *rows.stride()]
    value = current.new_full((), torch.nan)
    g_current = current.new_full(current.shape, torch.nan) if needs_grad else None
    numbers = (ctypes.c_int64 * 15)(*numbers, current.shape[1], *ring)
    status = getattr(load(), f"cuda_shim_{name}")(
        ctypes.c_bool(current.dtype == torch.float32),
        numbers,
        *rest,
        ctypes.c_void_p(value.data_ptr() if measured else None),
        ctypes.c_void_p(None if g_current is None else g_current.data_ptr()),
    )
    if status != 0:
        raise RuntimeError(f"{name}: CUDA error {status}")
    return value, g_current


def _table(table: Tensor) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    return ctypes.c_void_p(table.data_ptr()), ctypes.c_int64(table.numel())


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fwd: Callable[[Tensor, bool], tuple], current: Tensor) -> Tensor:
        value, ctx.g_current = fwd(current, True)
        return value

    @staticmethod
    def backward(ctx, g_out: Tensor) -> tuple[None, Tensor]:
        return None, g_out * ctx.g_current


def _sliced_arguments(directions: Tensor, bins: Tensor | None, p: float) -> tuple:
    columns = directions.reshape(directions.shape[-2:])
    given = (columns.data_ptr(), columns.shape[1], *columns.stride()[::-1], directions.dim() == 3)
    return (ctypes.c_int64 * 5)(*given), _pointer(bins), ctypes.c_double(p)


_ARGUMENTS: dict[str, Callable[..., tuple]] = {
    "mmd": _table,
    "cramer_wold": lambda phi, gamma: (*_table(phi), ctypes.c_double(gamma)),
    "sliced_wasserstein": _sliced_arguments,
}
"""What follows the samples in a native op, for ctypes."""

Call = Callable[..., tuple]
"""call(current, needs_grad, measured=...) -> value, gradient."""


def _of(name: str, history: Tensor | mk.Newest, prior: Tensor | None, **options: Any) -> Call:
    def call(x: Tensor, needs_grad: bool, **measured: bool) -> tuple:
        given = OPS[name].fused_arguments(x, len(x) + len(history), prior is None, options)
        return _call(name, x, history, prior, needs_grad, *_ARGUMENTS[name](*given), **measured)

    return call


def _value(of: Callable[..., Call], current: Tensor, history: Tensor, prior: Tensor | None, **options: Any) -> Tensor:
    call = of(history, prior, **options)
    return _Value.apply(call, current) if current.requires_grad else call(current, False)[0]


def _gradient(
    of: Callable[..., Call],
    measure: bool,
    current: Tensor,
    history: Tensor | mk.Newest,
    prior: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    value, g_current = of(history, prior, **options)(current.detach(), True, measured=measure)
    return g_current, value if measure else None


def _later(name: str) -> Callable[..., Any]:
    return lambda *arguments: globals()[name](*arguments)


_CALLS = {name: functools.partial(_of, name) for name in _ARGUMENTS}

_KEPT = {"sliced_wasserstein": "sorted"}

mmd, cramer_wold, sliced_wasserstein = (functools.partial(_value, of) for of in _CALLS.values())

IMPLEMENTATIONS = {
    name: Implementation(
        functools.partial(_value, of),
        "cpu",
        gradient=functools.partial(_gradient, of),
        ring=functools.partial(_gradient, of),
        running=tuple(_later(f"{_KEPT.get(name, 'running')}_{what}") for what in ("fwd", "push")),
    )
    for name, of in _CALLS.items()
}
"""What the backend "cuda" has for each distance, on the CPU."""


def _running_numbers(rows: Tensor, prior: Tensor | None, size: int, present: int) -> ctypes.Array:
    numbers = [rows.data_ptr(), rows.shape[0], *rows.stride()]
    numbers += [0, 0, 0, 0] if prior is None else [prior.data_ptr(), prior.shape[0], *prior.stride()]
    return (ctypes.c_int64 * 11)(*numbers, size, present, rows.shape[1])


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def running_fwd(
    sums: Tensor, current: Tensor, prior_sums: Tensor | None, prior: Tensor | None, size: int, head: int, rows: int,
    table: Tensor, *gamma_and_needs_grad: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """mmd_running_fwd and cramer_wold_running_fwd, which has a gamma."""
    *gamma, needs_grad = gamma_and_needs_grad
    value, g_current = (
        current.new_full((), torch.nan),
        current.new_full(current.shape if needs_grad else (0,), torch.nan),
    )
    status = load().cuda_shim_running(
        ctypes.c_bool(current.dtype == torch.float32), _pointer(sums), _pointer(prior_sums),
        _running_numbers(current, prior, size, rows), *_table(table), ctypes.c_double(gamma[0] if gamma else -1),
        _pointer(value), _pointer(g_current if needs_grad else None),
    )  # fmt: skip
    if status != 0:
        raise RuntimeError(f"CUDA error {status}")
    return value, g_current


def running_push(
    sums: Tensor, rows: Tensor, prior_sums: Tensor | None, prior: Tensor | None, size: int, head: int, older: int,
    *table_and_evaluated: Any,
) -> None:  # fmt: skip
    """mmd_running_push and cramer_wold_running_push."""
    single = ctypes.c_bool(rows.dtype == torch.float32)
    numbers = _running_numbers(rows, prior, size, older)
    status = load().cuda_shim_running_push(single, _pointer(sums), _pointer(prior_sums), numbers, ctypes.c_int64(head))
    if status != 0:
        raise RuntimeError(f"CUDA error {status}")


def _sorted(
    keys: Tensor, fresh: Tensor, ring: tuple[int, int, int], directions: Tensor, bins: Tensor | None,
    results: tuple[Tensor | None, Tensor | None], evaluated: bool,
) -> None:  # fmt: skip
    numbers = [fresh.data_ptr(), len(fresh), *fresh.stride()]
    numbers += [directions.data_ptr(), directions.shape[1], *directions.stride()[::-1], *ring, fresh.shape[1]]
    status = load().cuda_shim_sorted(
        ctypes.c_bool(fresh.dtype == torch.float32), _pointer(keys), (ctypes.c_int64 * 12)(*numbers), _pointer(bins),
        *map(_pointer, results), ctypes.c_bool(evaluated),
    )  # fmt: skip
    if status != 0:
        raise RuntimeError(f"CUDA error {status}")


def sorted_fwd(
    keys: Tensor, current: Tensor, size: int, head: int, rows: int, list_: int, directions: Tensor, bins: Tensor,
    needs_grad: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """sliced_wasserstein_sorted_fwd."""
    value, g_current = (current.new_full(shape, torch.nan) for shape in ((), current.shape if needs_grad else (0,)))
    results = value, g_current if needs_grad else None
    _sorted(keys, current, (size, head, rows), directions, bins, results, False)
    return value, g_current


def sorted_push(
    keys: Tensor, rows: Tensor, size: int, head: int, older: int, list_: int, directions: Tensor, evaluated: bool
) -> None:
    """sliced_wasserstein_sorted_push."""
    _sorted(keys, rows, (size, head, older), directions, None, (None, None), evaluated)


def k_center(x: Tensor, *, k: int, start: int, given: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    indices, counts = (torch.full((k,), -1) for _ in range(2))
    squared_radius = x.new_full((), torch.nan)
    rows = (ctypes.c_int64 * 4)(x.data_ptr(), len(x), *x.stride())
    numbers = (ctypes.c_int64(number) for number in (x.shape[1], k, start))
    pointers = (ctypes.c_void_p(result.data_ptr()) for result in (indices, squared_radius, counts))
    centers = _pointer(given), ctypes.c_int64(0 if given is None else len(given))
    status = load().cuda_shim_k_center(ctypes.c_bool(x.dtype == torch.float32), rows, *numbers, *centers, *pointers)
    if status != 0:
        raise RuntimeError(f"k_center: CUDA error {status}")
    return indices, squared_radius, counts


def _ring(ring: Tensor, head: Tensor, rows: Tensor | None, count: int, newest: Tensor | None) -> None:
    numbers = (ctypes.c_int64 * 5)(ring.data_ptr(), *ring.shape, *ring.stride())
    given = None if rows is None else (ctypes.c_int64 * 3)(rows.data_ptr(), *rows.stride())
    single = ctypes.c_bool(ring.dtype == torch.float32)
    status = load().cuda_shim_ring(single, numbers, _pointer(head), given, ctypes.c_int64(count), _pointer(newest))
    if status != 0:
        raise RuntimeError(f"ring: CUDA error {status}")


def ring_newest(ring: Tensor, head: Tensor, count: int) -> Tensor:
    newest = ring.new_full((count, ring.shape[1]), torch.nan)
    _ring(ring, head, None, count, newest)
    return newest


def ring_push(ring: Tensor, head: Tensor, rows: Tensor) -> None:
    _ring(ring, head, rows, len(rows), None)


def _ring_of(
    name: str, current: Tensor, slots: Tensor, head: Tensor, rows: int, prior: Tensor | None, *rest: Any
) -> tuple:
    """NAME_ring."""
    *arguments, measure = rest
    history = mk.Ring(slots, head).last(rows)
    value, g_current = _call(name, current, history, prior, True, *_ARGUMENTS[name](*arguments), measured=measure)
    return value if measure else current.new_empty(0), g_current


_RING_SCHEMAS = {
    "mmd": "Tensor table",
    "cramer_wold": "Tensor phi, float gamma",
    "sliced_wasserstein": "Tensor directions, Tensor? normal, float p",
}


@contextlib.contextmanager
def ring_on_the_cpu() -> Iterator[None]:
    """Windows whose head only the device knows take the kernels for a ring here."""
    schemas = {
        "ring_newest": "(Tensor ring, Tensor head, int count) -> Tensor",
        "ring_push": "(Tensor(a!) ring, Tensor(b!) head, Tensor rows) -> ()",
    }
    kernels = {name: globals()[name] for name in schemas}
    for name, arguments in _RING_SCHEMAS.items():
        samples = "Tensor current, Tensor ring, Tensor head, int rows, Tensor? prior"
        schemas[f"{name}_ring"] = f"({samples}, {arguments}, bool measure) -> (Tensor, Tensor)"
        kernels[f"{name}_ring"] = functools.partial(_ring_of, name)
    with contextlib.ExitStack() as stack:
        stack.callback(_look_again)  # when these are gone
        here = stack.enter_context(torch.library._scoped_library("mow_kernels", "FRAGMENT"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, schema in schemas.items():
            if not hasattr(torch.ops.mow_kernels, name):  # of a library without them
                here.define(name + schema)
            here.impl(name, kernels[name], "CPU")
        patch.setattr(ring, "fused", lambda slots: slots.dtype in (torch.float32, torch.float64))
        _look_again()
        yield


def _look_again() -> None:
    """At what the native library has."""
    native.has.cache_clear()
    registry._multiply()
