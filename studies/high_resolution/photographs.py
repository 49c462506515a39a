"""A run on photographs of 1024 x 1024 with FFHQ's architecture, one picture a step, in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import memory
from mow.app.data import LazyPictures
from mow.app.options import Options
from mow.app.run import Run

SIDE = 1024
TILES = 5
"""Most tiles that are cut out of one photograph."""

SECONDS = 4 * 3600
"""What the run may take on a busy machine."""


def cut(source: Path, into: Path, side: int = SIDE, most: int = TILES) -> list[dict[str, Any]]:
    """Tiles of side x side, without overlap and around the middle, out of every JPEG photograph in `source`.

    They are written to `into` as PNG files. Returns what was cut out of what.

    Raises:
        ValueError: no photograph is large enough.
    """
    found = []
    for path in sorted(source.glob("*.jpg")):
        with Image.open(path) as photograph:
            width, height = photograph.size
            columns, rows = width // side, height // side
            left, top = (width - columns * side) // 2, (height - rows * side) // 2
            corners = [(left + side * x, top + side * y) for y in range(rows) for x in range(columns)]
            chosen = corners[:: max(1, -(-len(corners) // most))]
            for number, (x, y) in enumerate(chosen):
                photograph.crop((x, y, x + side, y + side)).convert("RGB").save(into / f"{path.stem}-{number}.png")
        if chosen:
            found.append({"file": path.name, "size": [width, height], "corners": [list(corner) for corner in chosen]})
    if not found:
        raise ValueError(f"{source} holds no .jpg photograph of {side} x {side} or more")
    return found


def run(source: Path, steps: int, k: int = 1, n: int = 64) -> dict[str, Any]:
    """Losses, seconds and peak memory of a run of so many steps, and what it ran on."""
    with tempfile.TemporaryDirectory() as folder:
        tiles = Path(folder) / "tiles"
        tiles.mkdir()
        photographs = cut(source, tiles)
        words = [str(tiles), str(Path(folder) / "run"), str(steps), str(k), str(n)]
        found = memory.peak([sys.executable, "-m", "studies.high_resolution.photographs", *words], SECONDS)
    if "reason" in found:
        raise RuntimeError(f"the run ended: {found['reason']}")
    peak = {"peak_mib": round(found["peak_mib"], 1)}
    return {"photographs": photographs, "k": k, "n": n, **peak, **json.loads(found["last_line"])}


def _probe(tiles: str, out: str, steps: int, k: int, n: int) -> None:
    torch.set_num_threads(1)
    options = Options(
        data=tiles,
        architecture="ffhq",
        k=k,
        n=n,
        steps=steps,
        threads=1,
        log_every=1,
        checkpoint_every=steps,
    )
    started = Run.start(options, Path(out))
    step, wall, cpu = started.trainer.step, [], []

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter(), time.process_time()
        result = step(*args, **kwargs)
        wall.append(round(time.perf_counter() - began[0], 2))
        cpu.append(round(time.process_time() - began[1], 2))
        return result

    started.trainer.step = timed  # type: ignore[method-assign]  # this one times itself
    started.train(pages=False)
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    result = {
        "origin": started.source.origin.replace(tiles, "the tiles"),
        "lazy": isinstance(started.source.train, LazyPictures),
        "steps": [{name: line[name] for name in line if name != "seconds"} for line in lines],
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "load": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    _probe(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
