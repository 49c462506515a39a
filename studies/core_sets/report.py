"""The tables of docs/core-sets.md, from the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, ratio, row, size, spread, table
from studies import demo_runs
from studies.core_sets import energy as trained_energy
from studies.core_sets import gan as trained_gan
from studies.paired import interval

PAGE = "core-sets.md"
_NAMES = {
    "cpp": "`mk.k_center`, cpp",
    "reference": "`mk.k_center`, reference",
    "loop": "plain PyTorch loop",
    "matrix": "N x N matrix, running minimum of its rows",
    "matrix, columns": "N x N matrix, minimum over the taken columns in each round",
}


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    sections = {
        "coreset": coverage(json.loads((results / "coreset.json").read_text())),
        "speed": speed(record.read(results / "speed.json")),
        "anomaly": anomaly(record.read(results / "anomaly.json")),
        "gan": gan(record.read(results / "gan.json")),
        "energy": energy(record.read(results / "energy.json")),
    }
    return fill(docs / PAGE, sections)


def coverage(found: dict[str, Any]) -> str:
    """The covering radius of so many pictures, chosen as a core-set and at random."""
    lines = ["| pictures chosen | core-set | random choice, median (range over 10) |", "|---|---|---|"]
    for chosen, covered, drawn in zip(found["sizes"], found["coreset"], found["random"], strict=True):
        lines.append(row([str(chosen), f"{covered:.1f}", spread(drawn, ".1f", median)]))
    return "\n".join([*lines, "", demo_runs.made_with(found)])


def speed(content: dict[str, Any]) -> str:
    """Times of each case, and the large sample."""
    cases, large = content["cases"], content["large"]
    rows = []
    for i, name in enumerate(_NAMES):
        cells = [_NAMES[name]]
        for case in cases:
            candidate = case["candidates"][i]
            cells.append(duration(1e6 * candidate["seconds"]["median"]))
            cells.append("" if name == "cpp" else ratio(candidate["times_cpp"], spread=True))
        rows.append(cells)
    heads = ["one thread, float32"]
    for case in cases:
        heads += [f"{case['rows']:,} -> {case['k']:,}, D = {case['dim']}", "times as long as cpp"]
    sentence = (
        f"{large['rows']:,} -> {large['k']:,} at D = {large['dim']}: {large['seconds']:.0f} s on one thread. Peak "
        f"memory beyond the sample's own {size(large['sample_mib'])}: {size(large['extra_mib'])}, most of it a copy."
    )
    return f"{table(heads, rows)}\n\n{sentence}\n\n{about(content)}"


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
                cells.append(spread(scores["by_seed"], ".3f"))
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
            about(content),
        ]
    )


def gan(content: dict[str, Any]) -> str:
    """Scores of the GANs at the last evaluation, and the paired differences over the seeds."""
    scores = {"Fréchet, classifier": (1, ".1f"), "precision": (2, ".3f"), "recall": (3, ".3f")}
    rows = []
    for batch in sorted({run["batch"] for run in content["runs"]}):
        pairs = _pairs([run for run in content["runs"] if run["batch"] == batch], "seed")
        for title, (place, form) in scores.items():
            values = [(a["curve"][-1][place], b["curve"][-1][place]) for a, b in pairs.values()]
            rows.append([f"batch of {batch}, {title}", *_compared(values, form)])
    words = (
        f"; {content['settings']['generated']:,} generated pictures against test pictures in the features of "
        f"{content['features']} (accuracy {content['accuracy']:.3f})"
    )
    return _page(content, "", rows, words, of=len(trained_gan.CELLS))


def energy(content: dict[str, Any]) -> str:
    """AUPRC of the energy models by digit, and over the digits with the paired difference over the seeds."""
    pairs = _pairs(content["runs"], "digit", "seed")
    digits, seeds = (sorted({key[i] for key in pairs}) for i in (0, 1))
    rows = []
    for digit in digits:
        of = [pairs[digit, seed] for seed in seeds if (digit, seed) in pairs]
        rows.append([f"without {digit}", *_compared([(a["auprc"], b["auprc"]) for a, b in of], ".3f")])
    whole = [[pairs[digit, seed] for digit in digits] for seed in seeds if all((d, seed) in pairs for d in digits)]
    means = [(fmean(a["auprc"] for a, _ in of), fmean(b["auprc"] for _, b in of)) for of in whole]
    rows.append([f"mean of these {len(digits)}", *_compared(means, ".3f")])
    words = (
        f" with batches of {content['settings']['batch']}; the AUPRC of a run is the mean over the second half of its "
        "evaluations"
    )
    return _page(content, "AUPRC", rows, words, of=len(trained_energy.CELLS))


def _page(content: dict[str, Any], head: str, rows: list[list[str]], words: str, of: int) -> str:
    """The rows, on what and how long the runs were, and where they were made."""
    done, seconds = len(content["runs"]), fmean(run["seconds"] for run in content["runs"])
    runs = f"{done} runs" if done == of else f"{done} of {of} runs so far"
    sentence = f"{content['data']}; {content['settings']['steps']:,} steps{words}; {runs}, {seconds:.0f} s each."
    return "\n\n".join([table([head, *_COMPARED], rows), sentence, about(content)])


_COMPARED = ("seeds", "random choice", "core-sets", "core-sets less random, 95 % interval")


def _pairs(runs: Sequence[dict[str, Any]], *by: str) -> dict[Any, tuple[dict[str, Any], dict[str, Any]]]:
    """The runs with random choice and with core-sets that agree in what `by` names, where there are both."""
    of = {tuple(run[name] for name in (*by, "choice")): run for run in runs}
    keys = [key[:-1] for key in of if key[-1] == "random" and (*key[:-1], "coreset") in of]
    return {key if len(key) > 1 else key[0]: (of[*key, "random"], of[*key, "coreset"]) for key in keys}


def _compared(values: Sequence[tuple[float, float]], form: str) -> list[str]:
    """How many pairs, the means of both sides with their ranges, and the mean difference with its interval."""
    if not values:
        return ["0", "", "", ""]
    sides = [spread(side, form) for side in zip(*values, strict=True)]
    differences = [b - a for a, b in values]
    if len(differences) == 1:
        return ["1", *sides, f"{differences[0]:+{form}}"]
    low, mean, high = interval(differences)
    return [str(len(values)), *sides, f"{mean:+{form}} [{low:+{form}}, {high:+{form}}]"]
