"""The tables of docs/distributed.md, from a result: what was counted and timed, and a model of many GPUs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, table

PAGE = "distributed.md"


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page by those of the newest result. Returns what was written."""
    return fill(docs / PAGE, {"distributed": tables(record.read(record.newest(results)))})


def tables(content: dict[str, Any]) -> str:
    """All that stands between the markers of the page."""
    sizes, chosen = content["sizes"], content["modelled"]
    heads = ["gloo, float32", *(f"{world} process{'es' * (world != '1')}" for world in content["measured"])]
    rows = []
    for kind in content["measured"]["1"]:
        found = [of_world[kind] for of_world in content["measured"].values()]
        rows.append([f"{kind}: collectives a step", *(_collectives(one["sent"]) for one in found)])
        rows.append([f"{kind}: bytes that a rank puts in", *(_bytes(one["sent"]) for one in found)])
        rows.append([f"{kind}: time of a step, median (p20 – p80)", *(_spread(one["seconds"]) for one in found)])
    counted = (
        f"Counted by PyTorch's profiler and timed over {sizes['steps']} steps: n = {sizes['n']:,}, D = {sizes['dim']}, "
        "one new 28 x 28 picture a rank, encoder and decoder of the paper's MNIST model, no value asked for. The two "
        "largest all_reduce are DDP's buckets. **The times only indicate**: all processes share the cores of one "
        "machine, which had other work to do at the same time, as its load average says."
    )
    return "\n\n".join(
        [table(heads, rows), counted, about(content, content["cases"]), _model(content["assumed"], chosen)]
    )


def _collectives(sent: list[tuple[str, int]]) -> str:
    names = [name for name, _ in sent]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "none"


def _bytes(sent: list[tuple[str, int]]) -> str:
    return " + ".join(f"{size:,}" for _, size in sent) or "0"


def _spread(seconds: list[float]) -> str:
    low, middle, high = (duration(1e6 * value) for value in seconds)
    return f"{middle} ({low} – {high})"


def _model(assumed: dict[str, float], chosen: dict[str, Any]) -> str:
    n, dim, weights = chosen["n"], chosen["dim"], chosen["weights"]
    rows = []
    for world in chosen["worlds"]:
        latents, directions = 2 * (dim + 1) * 4, chosen["directions"]
        rows.append(
            [
                f"{world:,}",
                f"{world * latents / 1000:,.1f} kB",
                *(
                    duration(1e6 * seconds)
                    for seconds in (
                        _ring(assumed, world, latents),
                        _ring(assumed, world, weights * 4 / world, 2),
                        10 * world * n * dim / assumed["flops"],
                        10 * n * dim / assumed["flops"],
                        _ring(assumed, world, (world * dim + 3) * 8 / world, 2),
                        _all_to_all(assumed, world, n * directions * 4 / world**2),
                    )
                ),
            ]
        )
    heads = [
        "GPUs, one new element each",
        "latents gathered by each",
        "all-gather of the latents",
        "all-reduce of the gradients",
        "distance, replicated",
        "distance, sharded",
        "its all-reduce",
        "sliced: all-to-all",
    ]
    said = (
        f"**A model, not a measurement**: t = launch + hops · latency + bytes / bandwidth, rings, D = {dim}, "
        f"n = {n:,}, {weights:,} weights, L = {chosen['directions']}, float32; the distance as 10 K n D "
        f"operations for MMD or Cramer-Wold by running sums. Assumed: launch {duration(1e6 * assumed['launch'])}, "
        f"a hop {duration(1e6 * assumed['hop_inside'])} within a node of {assumed['gpus_a_node']} and "
        f"{duration(1e6 * assumed['hop_outside'])} between nodes, {assumed['bandwidth_inside'] / 1e9:g} and "
        f"{assumed['bandwidth_outside'] / 1e9:g} GB/s, {assumed['flops'] / 1e12:g} TFLOP/s."
    )
    return f"{said}\n\n{table(heads, rows)}"


def _ring(assumed: dict[str, float], world: int, piece: float, rounds: int = 1) -> float:
    """Seconds of a ring in which every GPU passes world - 1 pieces on: all-gather, or in two rounds all-reduce."""
    hops, nodes = world - 1, math.ceil(world / assumed["gpus_a_node"])
    outside = nodes if nodes > 1 else 0
    latency = (hops - hops * outside / world) * assumed["hop_inside"] + hops * outside / world * assumed["hop_outside"]
    bandwidth = assumed["bandwidth_outside" if nodes > 1 else "bandwidth_inside"]
    return assumed["launch"] + rounds * (latency + hops * piece / bandwidth)


def _all_to_all(assumed: dict[str, float], world: int, piece: float) -> float:
    """Seconds in which every GPU sends another piece to each other one."""
    where = "outside" if world > assumed["gpus_a_node"] else "inside"
    each = assumed[f"hop_{where}"] + piece / assumed[f"bandwidth_{where}"]
    return assumed["launch"] + (world - 1) * each
