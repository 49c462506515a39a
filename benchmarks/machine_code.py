"""What NVIDIA's machine code says of a kernel, by the tools that come with nvcc and with Triton."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any


def tool(name: str) -> str | None:
    """cuobjdump or nvdisasm: on the path, beside nvcc, or in Triton."""
    folders: list[str | None] = [None]
    if (triton := importlib.util.find_spec("triton")) and triton.origin:
        folders.append(str(Path(triton.origin).parent / "backends/nvidia/bin"))
    if nvcc := shutil.which("nvcc"):
        folders.append(str(Path(nvcc).resolve().parent))
    return next((found for folder in folders if (found := shutil.which(name, path=folder))), None)


def run(name: str, *arguments: str) -> str:
    return subprocess.run([str(tool(name)), *arguments], check=True, capture_output=True, text=True).stdout


TENSOR = ("HMMA", "HGMMA", "UTCHMMA")  # multiply a matrix of float16 by another


def loop(code: str) -> dict[str, Any]:
    """Of the innermost loop with the most multiply-adds: its instructions, and the share of those. And the loads and
    stores of spilled registers within all innermost loops.

    Args:
        code: of one kernel, as nvdisasm writes it.
    """
    inner = _innermost(code)
    spills = sum(operation in ("STL", "LDL") for operations in inner for operation in operations)
    result: dict[str, Any] = {"loop": None, "share": None, "loop_spills": spills}
    count, most = _most(inner, ("FFMA", "DFMA"))
    return result | ({"loop": len(most), "share": round(count / len(most), 3)} if count else {})


def tensor_loop(code: str) -> dict[str, Any]:
    """Of the innermost loop with the most instructions for tensor cores: all its instructions, and how many of them are
    those. Where they are in none, since it is a loop that waits or copies: of the instructions between two jumps."""
    found = [_most(parts(code), TENSOR) for parts in (_innermost, _stretches)]
    count, most = next((each for each in found if each[0]), (0, []))
    return {"tensor_loop": len(most), "tensor": count} if count else {}


def _most(loops: list[list[str]], names: tuple[str, ...]) -> tuple[int, list[str]]:
    """The loop with the most such operations, and how many."""
    counts = [sum(operation.startswith(names) for operation in operations) for operations in loops]
    return max(zip(counts, loops, strict=True), key=lambda found: found[0], default=(0, []))


_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_OPERATION = re.compile(r"\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)[.\s;]?.*?(?:`\((\.L_x_\d+)\))?\s*;")


def _innermost(code: str) -> list[list[str]]:
    """The operations of each innermost loop."""
    operations: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in code.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(operations)
        elif found := _OPERATION.search(line):
            operations.append(found[1])
            if found[1] == "BRA" and found[2] in labels and labels[found[2]] < len(operations) - 1:
                loops.append((labels[found[2]], len(operations)))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [operations[first:last] for first, last in inner]


def _stretches(code: str) -> list[list[str]]:
    """The operations between two jumps or places to jump to."""
    stretches: list[list[str]] = [[]]
    for line in code.splitlines():
        if _LABEL.match(line):
            stretches.append([])
        elif found := _OPERATION.search(line):
            stretches[-1].append(found[1])
            if found[1] == "BRA":
                stretches.append([])
    return stretches
