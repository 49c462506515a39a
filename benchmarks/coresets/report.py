"""The tables of docs/core-sets.md, from the results."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import record
from benchmarks.report import _about, _duration, _ratio, _size, table
from mow.app.files import write_whole

_NAMES = {
    "cpp": "`mk.k_center`, cpp",
    "reference": "`mk.k_center`, reference",
    "loop": "plain PyTorch loop",
    "matrix": "N x N matrix, running minimum of its rows",
    "matrix, columns": "N x N matrix, minimum over the taken columns in each round",
}


def write(results: Path, page: Path) -> Path:
    """Replace the tables on the page, between their markers."""
    text = page.read_text()
    for name, make in (("speed", speed), ("anomaly", anomaly)):
        text = splice(text, name, make(record.read(results / f"{name}.json")))
    return write_whole(page, text)


def speed(content: dict[str, Any]) -> str:
    """Times of each case, and the large sample."""
    cases, large = content["cases"], content["large"]
    rows = []
    for i, name in enumerate(_NAMES):
        cells = [_NAMES[name]]
        for case in cases:
            candidate = case["candidates"][i]
            cells.append(_duration(1e6 * candidate["seconds"]["median"]))
            cells.append("" if name == "cpp" else _ratio(candidate["times_cpp"], spread=True))
        rows.append(cells)
    heads = ["one thread, float32"]
    for case in cases:
        heads += [f"{case['rows']:,} -> {case['k']:,}, D = {case['dim']}", "times as long as cpp"]
    sentence = (
        f"{large['rows']:,} -> {large['k']:,} at D = {large['dim']}: {large['seconds']:.0f} s on one thread. Peak "
        f"memory beyond the sample's own {_size(large['sample_mib'])}: {_size(large['extra_mib'])}, most of it a copy."
    )
    return f"{table(heads, rows)}\n\n{sentence}\n\n{_how(content)}"


def anomaly(content: dict[str, Any]) -> str:
    """AUPRC of both detectors, the mean over classes and seeds and the range over the seeds; then by class."""
    rows, by_class = [], []
    for detector in ("memory", "auto-encoder"):
        found = content[detector]
        for key in found:
            if not key.startswith("coreset") or key.endswith("step"):  # times, one after the other, compare badly
                continue
            title = f"{detector}, bank of {key.split()[1]}" if " " in key else f"{detector}, batches of 64"
            cells, classes = [title], [title]
            for kind in ("random", "coreset"):
                scores = found[key.replace("coreset", kind)]
                seeds = scores["by_seed"]
                cells.append(f"{mean(seeds):.3f} ({min(seeds):.3f} – {max(seeds):.3f})")
            pairs = zip(
                *(found[key.replace("coreset", kind)]["by_class"] for kind in ("random", "coreset")), strict=True
            )
            classes += [f"{a:.2f} -> {b:.2f}" for a, b in pairs]
            rows.append(cells)
            by_class.append(classes)
    return "\n\n".join(
        [
            table(["AUPRC, mean over 10 classes (range over 3 seeds)", "random choice", "core-sets"], rows),
            "By held-out class, random choice -> core-sets:",
            table(["held-out class", *map(str, range(content["classes"]))], by_class),
            _how(content),
        ]
    )


def splice(text: str, name: str, table: str) -> str:
    """The text with what stands between `<!-- name:start -->` and `<!-- name:end -->` replaced.

    Raises:
        ValueError: a marker is missing.
    """
    before, start, rest = text.partition(f"<!-- {name}:start -->")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not (start and end):
        raise ValueError(f"the page lacks the markers {name}:start and, after it, {name}:end")
    return f"{before}{start}\n{table}\n{end}{after}"


def _how(content: dict[str, Any]) -> str:
    return _about({**content, "cases": [], "steps": []})
