"""What the compiler says of the Triton kernels, without a GPU: registers, spills, shared memory, and the inner loop.

Nothing here is a measurement of speed. The share of multiply-adds in a loop's machine code bounds how near to the
arithmetic limit it can run: every other instruction takes an issue slot from one.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

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
        usage = _run("cuobjdump", "--dump-resource-usage", file.name)
        code = _run("nvdisasm", "-c", file.name)
    number = {key: max(map(int, re.findall(rf"{key}:(\d+)", usage))) for key in ("REG", "STACK", "LOCAL")}
    spills = len(re.findall(r"\b(?:STL|LDL)\b", code))
    return row | {
        "registers": number["REG"],
        "local": number["STACK"] + number["LOCAL"],
        "spills": spills,
        **_loop(code),
    }


def tool(name: str) -> str | None:
    """cuobjdump or nvdisasm: on the path, beside nvcc, or in Triton."""
    folders = [None, str(Path(triton.__file__).parent / "backends/nvidia/bin")]
    if nvcc := shutil.which("nvcc"):
        folders.append(str(Path(nvcc).resolve().parent))
    return next((found for folder in folders if (found := shutil.which(name, path=folder))), None)


@functools.cache
def missing() -> str | None:
    """Which tool is not here, or None."""
    absent = [name for name in ("cuobjdump", "nvdisasm") if tool(name) is None]
    return f"there is no {' and no '.join(absent)}" if absent else None


def _run(name: str, *arguments: str) -> str:
    return subprocess.run([str(tool(name)), *arguments], check=True, capture_output=True, text=True).stdout


def _loop(code: str) -> dict[str, Any]:
    """Of the innermost loop with the most float32 multiply-adds: its instructions, and the share of those. And the
    loads and stores of spilled registers within all innermost loops."""
    operations: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(operations)
        elif found := re.search(r"\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)[.\s;]?.*?(?:`\((\.L_x_\d+)\))?\s*;", line):
            operations.append(found[1])
            if found[1] == "BRA" and found[2] in labels and labels[found[2]] < len(operations) - 1:
                loops.append((labels[found[2]], len(operations)))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    spills = sum(operation in ("STL", "LDL") for first, last in inner for operation in operations[first:last])
    found: dict[str, Any] = {"loop": None, "share": None, "loop_spills": spills}
    if not inner:
        return found

    def multiply_adds(loop: tuple[int, int]) -> int:
        return sum(operation.startswith("FFMA") for operation in operations[loop[0] : loop[1]])

    first, last = max(inner, key=multiply_adds)
    if count := multiply_adds((first, last)):
        found |= {"loop": last - first, "share": round(count / (last - first), 3)}
    return found
