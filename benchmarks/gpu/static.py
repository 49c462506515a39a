"""What the compiler says of the Triton kernels, without a GPU: registers, spills, shared memory, and the inner loop.

Nothing here is a measurement of speed. The share of multiply-adds in a loop's machine code bounds how near to the
arithmetic limit it can run: every other instruction takes an issue slot from one.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks import machine_code
from mow_kernels import SCALES
from mow_kernels.triton import cramer_wold, mmd, pairs, sliced_wasserstein

TARGETS = {f"sm_{number}": GPUTarget("cuda", number, 32) for number in (80, 90, 100, 120)}
TARGETS["gfx942"] = GPUTarget("hip", "gfx942", 64)
DIMS = (20, 64, 256)

_POINTERS = {
    **dict.fromkeys(("current", "history", "prior", "packed", "directions", "partners", "sorted", "slopes"), "*fp32"),
    **dict.fromkeys(("projections", "value", "g_current"), "*fp32"),
    **dict.fromkeys(("value_parts", "g_parts", "costs", "inside"), "*fp64"),
    **{"order": "*i64", "numbers": ("fp32",) * 12, "constant": "fp32", "rest": "fp32", "whole": "i64"},
}


@dataclass(frozen=True)
class Kernel:
    """A kernel as a launcher would ask for it."""

    name: str
    function: Any
    constants: Mapping[str, Any]
    options: Mapping[str, Any]

    def compile(self, target: str) -> Any:
        signature, constants, attributes = {}, dict(self.constants), {}
        for index, name in enumerate(self.function.arg_names):
            if name in constants or name.endswith("column") and name != "column":
                constants.setdefault(name, 1)  # a step of 1 is compiled in, as for contiguous rows
                signature[name] = "constexpr"
                continue
            signature[name] = _POINTERS.get(name, "i32")
            if str(signature[name]).startswith("*") or name == "stride":
                attributes[(index,)] = [["tt.divisibility", 16]]
        options = {name: value for name, value in self.options.items() if value is not None}
        if target.startswith("gfx"):
            options.pop("maxnreg", None)
        source = ASTSource(self.function, signature, constants, attributes)
        return triton.compile(source, target=TARGETS[target], options=options)


def kernels() -> Iterator[Kernel]:
    """Every kernel at its default sizes."""
    for dim in DIMS:
        yield from pair_kernels("mmd", dim)
        yield from pair_kernels("cramer_wold", dim)
    yield from sliced_kernels()
    block = pairs.blocks(64, torch.float32, False)
    size = {"DIM": 64, "WIDTH": block.width, "OTHERS": block.others}
    yield Kernel("pairs: pack, D = 64", pairs.pack_kernel, size, {"num_warps": block.warps})
    yield Kernel("pairs: finish", pairs.finish_kernel, {"VALUE": True}, {"num_warps": 4})


def pair_kernels(distance: str, dim: int) -> Iterator[Kernel]:
    """MMD to a sample with the seven scales, or Cramer-Wold to N(0, I): with gradients, by one program and by many."""
    if distance == "mmd":
        f, _, g, _, _ = mmd._radials(dim, torch.float32, "imq", SCALES, False)
    else:
        f, _ = cramer_wold._phi(dim, torch.float32, "exact")
        g = f
    for one in (True, False):
        constants, options = pairs.compile_options(f, g, True, dim, torch.float32, one)
        function = pairs.one_kernel if one else pairs.pairs_kernel
        yield Kernel(f"{distance}: {'one program' if one else 'many'}, D = {dim}", function, constants, options)
    yield Kernel(f"{distance}: gradient alone, D = {dim}", function, {**constants, "VALUE": False}, options)


def sliced_kernels() -> Iterator[Kernel]:
    """To a sample of n rows, D = 64, with the gradient."""
    sw, common = sliced_wasserstein, {"DIM": 64, "NORMAL": False, "GRADIENT": True}
    match = {"STEPS": 1, "POWER": 2.0}
    four = {"num_warps": 4}
    for n, counts in ((64, False), (sw.SORTED, False), (64, True)):
        constants = {"SIZE": n, "SIZE_M": n, "DEPTH": sw._depth(64, n), "COUNTS": counts, **match, **common}
        constants["DRAWN"] = False
        name = f"sliced_wasserstein: {'count' if counts else 'match'}, n = {n}"
        yield Kernel(name, sw.match_kernel, constants, {"num_warps": 8 if n > 256 else 4})
    yield Kernel("sliced_wasserstein: count", sw.count_kernel, {"ROWS": 1024, **match, **common}, four)
    yield Kernel(
        "sliced_wasserstein: project", sw.project_kernel, {"DIM": 64, "ROWS": 256, "DEPTH": sw._depth(64, 256)}, four
    )
    yield Kernel("sliced_wasserstein: match sorted", sw.match_sorted_kernel, {"ROWS": 256, **match, **common}, four)
    yield Kernel(
        "sliced_wasserstein: finish", sw.finish_kernel, {"ROWS": 16, "COLUMNS": 64, "VALUE": True, **common}, four
    )


def inspect(kernel: Kernel, target: str) -> dict[str, Any]:
    """Registers a thread, bytes of local memory a thread, shared memory a block, and for NVIDIA the inner loop."""
    compiled = kernel.compile(target)
    row = {"kernel": kernel.name, "target": target, "warps": kernel.options["num_warps"]}
    row["shared"] = compiled.metadata.shared
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]

        def note(key: str) -> int:
            return max(map(int, re.findall(rf"\.{key}:\s+(\d+)", text)))

        spilled = note("vgpr_spill_count") + note("sgpr_spill_count")
        return row | {"registers": note("vgpr_count"), "local": note("private_segment_fixed_size"), "spills": spilled}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = machine_code.run("cuobjdump", "--dump-resource-usage", file.name)
        code = machine_code.run("nvdisasm", "-c", file.name)
    number = {key: max(map(int, re.findall(rf"{key}:(\d+)", usage))) for key in ("REG", "STACK", "LOCAL")}
    spills = len(re.findall(r"\b(?:STL|LDL)\b", code))
    return row | {
        "registers": number["REG"],
        "local": number["STACK"] + number["LOCAL"],
        "spills": spills,
        **machine_code.loop(code),
    }


@functools.cache
def missing() -> str | None:
    """Which tool is not here, or None."""
    absent = [name for name in ("cuobjdump", "nvdisasm") if machine_code.tool(name) is None]
    return f"there is no {' and no '.join(absent)}" if absent else None
