"""docs/gpu.md, from what the compiler said (static.json) and, once there is one, the newest run on a GPU."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import page, record
from benchmarks.gpu import suite
from mow.files import write_whole

RESULTS = Path(__file__).parent / "results"
STATIC = Path(__file__).parent / "static.json"
_COUNTS = {
    "warps": "warps",
    "registers": "registers",
    "local memory": "local",
    "shared memory": "shared",
}
"""Heading -> what the compiler counted."""
PAGE = page.DOCS / "gpu.md"

THRESHOLDS = (
    "The sizes at which Triton's launchers change from one way to another are estimates. For measuring, environment",
    "variables set them, read with the first call; [cuda.md](cuda.md) has those of CUDA C++:",
    "",
    "| variable | what it does |",
    "| --- | --- |",
    "| `MOW_TRITON_SINGLE=1048576` | multiply-adds up to which one program does MMD or Cramer-Wold alone |",
    "| `MOW_TRITON_SORTED=1024` | rows up to which a block sorts for sliced-Wasserstein; beyond, PyTorch does |",
    "| `MOW_TRITON_COUNTED=64` | current rows up to which the gradient alone counts ranks and sorts no window |",
)


def write_static(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    write_whole(STATIC, record.text({**head, "rows": rows}))


def write_page(path: Path = PAGE) -> Path:
    return write_whole(path, "\n".join(_page()) + "\n")


def runs() -> list[Path]:
    """The records of runs on a GPU, the newest last."""
    return sorted(RESULTS.glob("*.json"), key=lambda path: record.read(path)["created"])


def order(content: dict[str, Any]) -> list[str]:
    """The backends of a record as "auto" shall try them: by the geometric mean of their times, eager and from a graph,
    over what all of them have measured. Where that is nothing, as they stand."""
    times: dict[tuple[str, str], dict[str, float]] = {}
    for row in content["cases"]:
        backend, _, how = row["candidate"].partition(", ")
        if backend in content["backends"] and row["status"] == "measured" and row.get("ok", True):
            times.setdefault((row["name"], how), {})[backend] = math.log(row["us"])
    common = [found for found in times.values() if len(found) == len(content["backends"])]
    return sorted(content["backends"], key=lambda backend: sum(found[backend] for found in common))


def products(content: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Backend -> which of its `suite.FORMS` pays, and from how many rows n + m on.

    That is the least size from which on the form was right, and faster than the backend's products in float32, in
    every case of a record that these have. Of two such forms it is the one that is faster over what both have measured,
    by the geometric mean. A backend for which none pays is left out: it stays with float32.
    """
    found: dict[str, tuple[str, int]] = {}
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for row in content["cases"]:
        measured.setdefault(row["candidate"], {})[row["name"]] = row
    for form in suite.FORMS:
        backend = form.split()[0]
        rows, others = measured.get(form, {}), measured.get(backend, {})
        wins: dict[int, bool] = {}
        for name, other in others.items():
            if other["distance"] in suite.PAIRS:
                size = other["n"] + other["m"]
                wins[size] = wins.get(size, True) and name in rows and _beats(rows[name], other)
        lost = max((size for size, is_won in wins.items() if not is_won), default=0)
        won = [size for size, is_won in wins.items() if is_won and size > lost]
        if won and (backend not in found or _mean_ratio(rows, measured[found[backend][0]]) < 1):
            found[backend] = form, min(won)
    return found


def _beats(row: dict[str, Any], other: dict[str, Any]) -> bool:
    right = row["status"] == "measured" and row.get("ok", True)
    return right and (other["status"] != "measured" or row["us"] < other["us"])


def _mean_ratio(rows: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]]) -> float:
    """Of the times of the cases that both have."""
    pairs = [(row, others[name]) for name, row in rows.items() if name in others]
    logs = [math.log(a["us"] / b["us"]) for a, b in pairs if a["status"] == b["status"] == "measured"]
    return math.exp(sum(logs) / max(len(logs), 1))


def published(content: dict[str, Any]) -> dict[str, Any]:
    """The record without what products on tensor cores took where they do not pay."""
    pays = products(content)

    def is_shown(row: dict[str, Any]) -> bool:
        form, least = pays.get(row["candidate"].split()[0], (None, 0))
        return row["candidate"] not in suite.FORMS or (row["candidate"] == form and row["n"] + row["m"] >= least)

    return {**content, "cases": [row for row in content["cases"] if is_shown(row)]}


def _page() -> Iterator[str]:
    static = json.loads(STATIC.read_text())
    yield "# On a GPU"
    yield ""
    yield "Generated by `python -m benchmarks.gpu report`; not to be edited."
    yield ""
    if measured := runs():
        newest = measured[-1]
        yield f"## Measured ([`{newest.name}`](../benchmarks/gpu/results/{newest.name}))"
        yield ""
        content = record.read(newest)
        yield from ("```", *suite.table(published(content)), "```")
        for form, least in products(content).values():
            yield f"Products pay, {form}, from n + m = {least} on; smaller windows stay with float32."
    else:
        yield "**Nothing has been measured on hardware yet.** No GPU could be had. The kernels are tested on Triton's"
        yield "interpreter against the reference in float64, and compiled for the targets below. `make gpu` tests and"
        yield "measures them within eight minutes where there is a GPU: it needs PyTorch with CUDA, Triton, pytest and"
        yield "typer, and no network. No ratio or time on a GPU is claimed anywhere."
        yield ""
        yield "The rehearsal on the interpreter takes Triton 3.7, or 3.6 (PyTorch 2.11 has it) with NumPy before 2.4."
    yield ""
    yield from THRESHOLDS
    yield ""
    yield "## What the compiler says (static)"
    yield ""
    yield "This is no measurement of speed. Registers are a thread's, local memory (spills) in bytes a thread, shared"
    yield "memory in bytes a block. The last two columns look at the inner loop with the most float32 multiply-adds,"
    yield "its machine instructions and the share of multiply-adds among them. That share bounds how near to the"
    yield "arithmetic limit the loop can run, and says nothing of waiting. At D = 20 the loop takes differences, each"
    yield "a subtraction more, and has f in it; from D = 32 on it is a matrix product, and f stands outside."
    yield ""
    versions = static["versions"]
    yield f"Triton {versions['triton']}, {static['created'][:10]}, made with `{static['command']}`."
    yield "On sm_100 and sm_120 an instruction may hold two multiply-adds (FFMA2); it counts once."
    yield ""
    yield page.row(["kernel", "target", *_COUNTS, "loop", "multiply-adds"])
    yield page.row(["---", "---", *["---:"] * (len(_COUNTS) + 2)])
    for row in static["rows"]:
        share = "" if row.get("share") is None else f"{row['share']:.0%}"
        counts = (str(row[name]) for name in _COUNTS.values())
        yield page.row([row["kernel"], row["target"], *counts, str(row.get("loop") or ""), share])
