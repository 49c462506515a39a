"""Compiles the CUDA kernels for the default architectures and tabulates what ptxas says: no GPU is needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT, machine_code
from benchmarks.page import row

ARCHITECTURES = ("80", "90a", "100", "120")
FAMILIES = {
    "0": "inverse multiquadric",
    "1": "exponential",
    "2": "series",
    "5": "energy",
    "6": "Laplacian",
    "7": "rational quadratic",
    "10": "polynomial",
}

TILES, SINGLE = "pairwise_tiles", "float"
"""The kernel whose loop with the most multiply-adds is that over coordinates, in which the pairs' distances add up: in
the others it is the function of them."""

TENSOR_TILES, WARPGROUP_TILES = "pairwise_tensor_tiles", "pairwise_warpgroup_tiles"
PAIRS_OF_AN_INSTRUCTION = {TENSOR_TILES: 16 * 8 * 16 / 32 / 3, WARPGROUP_TILES: 64 * 64 * 16 / 128 / 3}
"""Pairs and coordinates that a thread's share of an m16n8k16 by a warp, or of an m64n64k16 by a warpgroup, is for: the
multiply-adds among its lanes, three times."""

COORDINATES = 64

nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")


def compile_all(architectures: Sequence[str] = ARCHITECTURES) -> dict[str, Any]:
    """{"nvcc": its version, "sources": `sources()`, "kernels": [a row for each kernel and architecture]}.

    What has been compiled from the same sources is not compiled again.

    Raises:
        RuntimeError: nvcc failed, with what it said, or there is no nvdisasm.
    """
    version = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", version)
    assert release is not None, version
    digest = hashlib.sha256((version + sources() + Path(__file__).read_text()).encode()).hexdigest()
    if machine_code.tool("nvdisasm") is None:
        raise RuntimeError("there is no nvdisasm; it comes with nvcc and with Triton")
    rows: list[dict[str, Any]] = []
    for architecture in architectures:
        cached = ROOT / "build/cuda_compiler" / digest[:16] / f"{architecture}.json"
        if not cached.exists():
            kernels = sorted((ROOT / "csrc/cuda").glob("*.cu"))
            found = [row for source in kernels for row in _compile(source, architecture)]
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(f".{os.getpid()}")  # of this process alone
            partial.write_text(json.dumps(found))
            partial.replace(cached)
        rows += json.loads(cached.read_text())
    return {
        "nvcc": release[1],
        "sources": sources(),
        "kernels": sorted(rows, key=lambda found: [str(item) for item in found.values()]),
    }


def sources() -> str:
    """A digest of all that the kernels are compiled from."""
    files = [path for folder in ("common", "cuda") for path in (ROOT / "csrc" / folder).iterdir()]
    kept = sorted(path for path in files if path.suffix != ".cpp")
    return hashlib.sha256(b"".join(path.read_bytes() for path in kept)).hexdigest()


def _compile(source: Path, architecture: str) -> list[dict[str, Any]]:
    code = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    command = [str(nvcc), "-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", code, "-Xptxas=-v"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["-cubin", str(source), "-o", f"{folder}/kernels.cubin"]  # the device's code alone
        finished = subprocess.run(command, capture_output=True, text=True)
        said = finished.stdout + finished.stderr
        if finished.returncode != 0:
            raise RuntimeError(f"nvcc cannot compile {source.name}:\n{said}")
        code = machine_code.run("nvdisasm", "-c", f"{folder}/kernels.cubin")
    loops = {name: machine_code.loop(of) | machine_code.tensor_loop(of) for name, of in _functions(code)}
    mangled = re.findall(r"Compiling entry function '(\w+)' for 'sm_", said)
    said = subprocess.run(["c++filt"], input=said, capture_output=True, text=True, check=True).stdout
    rows = []
    for symbol, entry in zip(mangled, said.split("Compiling entry function '")[1:], strict=True):
        signature, rest = entry.split("' for 'sm_", 1)
        if "cub::" in signature:  # not ours
            continue
        name = re.search(r"(\w+)<(float|double)(?:, \(mow::Family\)(\d+))?>\(", signature)
        registers = re.search(r"Used (\d+) registers", rest)
        spilled = re.search(r"(\d+) bytes spill stores", rest)
        assert name and registers and spilled, entry
        if name[1] == WARPGROUP_TILES and "tensor" not in loops[symbol]:
            continue  # an architecture without warpgroups, for which it is empty
        shared = re.search(r"(\d+) bytes smem", rest)
        rows.append(
            {
                "source": source.name,
                "kernel": name[1],
                "family": FAMILIES[name[3]] if name[3] else "",
                "type": name[2],
                "architecture": rest.split("'")[0],
                "registers": int(registers[1]),
                "spilled_bytes": int(spilled[1]),
                "static_shared_bytes": int(shared[1]) if shared else 0,
                **{name: x for name, x in loops[symbol].items() if name != "loop_spills"},
            }
        )
    return rows


def _functions(code: str) -> Iterator[tuple[str, str]]:
    """The kernels of a listing of nvdisasm, by their symbols."""
    for section in code.split(".section\t.text.")[1:]:
        yield section[: section.index(",")], section


def tables(result: dict[str, Any]) -> str:
    """The Markdown tables of a result."""

    def registers(found: dict[str, Any]) -> str:
        return f"{found['registers']}" + (f" ({found['spilled_bytes']} B spilled)" if found["spilled_bytes"] else "")

    def instructions(found: dict[str, Any]) -> str:
        return f"{COORDINATES / found['share']:.0f}"

    def with_tensor_cores(found: dict[str, Any]) -> str:
        pairs = found["tensor"] * PAIRS_OF_AN_INSTRUCTION[found["kernel"]] / COORDINATES
        return f"{found['tensor_loop'] / pairs:.1f} ({found['tensor'] / found['tensor_loop']:.0%})"

    kernels = result["kernels"]
    on_tensor_cores = [found for found in kernels if found["kernel"] in PAIRS_OF_AN_INSTRUCTION and "tensor" in found]
    of_pairs = [found for found in kernels if (found["kernel"], found["type"]) == (TILES, SINGLE)]
    return "\n".join(
        [
            f"Registers a thread by nvcc {result['nvcc']}, and what is spilled:",
            "",
            *_table(kernels, {"static shared memory, B": "static_shared_bytes"}, registers),
            "",
            f"Instructions that a pair of rows takes at D = {COORDINATES}, by the share of multiply-adds in the",
            "machine code of the inner loop. A multiprocessor issues 128 of them a clock, so a 128th is the floor in",
            "its clocks; what comes once a pair, and all waiting, is beside it:",
            "",
            *_table(of_pairs, {}, instructions),
            *([] if not on_tensor_cores else ["", *_TENSOR, "", *_table(on_tensor_cores, {}, with_tensor_cores)]),
        ]
    )


_TENSOR = (
    "The same where tensor cores take the products, of the loop that does nothing else, and the share of `mma.sync` or",
    "`wgmma` in it; what |x-y|^2 and the check of it take comes once a pair. A thread's share of a `wgmma` is eight",
    "times that of an `mma.sync`; of its loop it is the part between waiting for a slot and giving it back:",
)


def _table(
    rows: Sequence[dict[str, Any]], further: dict[str, str], cell: Callable[[dict[str, Any]], str]
) -> Iterator[str]:
    """A row a kernel, with its `further` columns, a heading and a key each, and then a cell an architecture."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for found in rows:
        keys = (f"{found['source']}: {found['kernel']}", found["family"], found["type"])
        of_kernel = cells.setdefault((*keys, *(str(found[key]) for key in further.values())), {})
        of_kernel[found["architecture"]] = cell(found)
    heads = ["kernel", "function", "type", *further, *(f"sm_{name}" for name in ARCHITECTURES)]
    yield from (row(heads), "|" + " --- |" * len(heads))
    for key in sorted(cells):
        yield row([*key, *(cells[key].get(name, "") for name in ARCHITECTURES)])
