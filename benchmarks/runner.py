"""Measures cases, training steps and memory, one job after the other, into one record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import cases, memory, plots, record, step, windows
from benchmarks.candidates import ALONE, BASELINES, FLOORS, OURS, candidates, variant
from benchmarks.cases import Candidate, Case
from benchmarks.timing import Effort, Entrant, interleave, ratios, summary

QUICK = Effort(rounds=(3, 10), seconds=1.0)
CURVE = Effort(rounds=(5, 15), seconds=1.0, slow_rounds=1)
TABLE = Effort(rounds=(5, 60), seconds=3.0)


@dataclass(frozen=True)
class Job:
    """One entry of the record."""

    section: str
    """"cases", "steps", "windows" or "memory"."""
    name: str
    run: Callable[[], dict[str, Any]]


def plan(quick: bool = False, patterns: Sequence[str] = ()) -> list[Job]:
    """The jobs of a run, cut down to those whose names match one of the patterns.

    Raises:
        ValueError: a pattern matches nothing.
    """
    every = record.cores()
    settings = [every] if quick or every == 1 else [every, 1]
    jobs = []
    for case in cases.QUICK if quick else cases.FULL:
        for threads in settings if "main" in case.groups else [every]:
            jobs.append(_case_job(case, threads, quick, alone=threads < every))
    for distance in cases.DISTANCES:
        for optimizer in step.OPTIMIZERS:
            jobs += [_step_job(distance, optimizer, threads, quick) for threads in settings]
    jobs += [_window_job(window, 1, quick) for window in [*windows.TABLE, *([] if quick else windows.CURVE)]]
    jobs += [_memory_job(case, quick) for case in cases.MEMORY]
    chosen = cases.matching([job.name for job in jobs], patterns)
    return [job for job in jobs if job.name in chosen]


def _case_job(case: Case, threads: int, quick: bool, alone: bool) -> Job:
    """`alone` is the second measurement of a case, on one core: without those that it is not about."""
    effort = QUICK if quick else CURVE if "scaling" in case.groups else TABLE
    taking_part: Collection[str] | None = None
    if "scaling" in case.groups:
        taking_part = plots.LINES.keys()
    elif alone or quick or (case.what == "fwd" and case.n > 1024):
        taking_part = (OURS, ALONE, variant(case.distance), *BASELINES, *FLOORS, "pot", "geomloss-gaussian-tensorized")
    return Job("cases", case.name, lambda: measure(case, threads, effort, taking_part))


def _step_job(distance: str, optimizer: str, threads: int, quick: bool) -> Job:
    name = f"step-{cases.SHORT[distance]}-{optimizer}"
    return Job("steps", name, lambda: measure_step(name, distance, optimizer, threads, QUICK if quick else TABLE))


def _window_job(window: windows.Window, threads: int, quick: bool) -> Job:
    effort = QUICK if quick else TABLE if window in windows.TABLE else CURVE
    return Job("windows", window.name, lambda: measure_window(window, threads, effort))


def _memory_job(case: Case, quick: bool) -> Job:
    name = f"memory-{case.name}"
    return Job("memory", name, lambda: measure_memory(name, case, quick))


def measure(case: Case, threads: int, effort: Effort, taking_part: Collection[str] | None = None) -> dict[str, Any]:
    """Time the candidates of a case against each other, each checked against the reference in float64.

    A candidate that fails becomes a row with its reason, not the end of the run.
    """
    given = cases.inputs(case)
    chosen = [c for c in candidates(case) if taking_part is None or c.name in taking_part]
    matches: dict[str, Any] = {}

    def enter(candidate: Candidate) -> Entrant:
        call, answer = candidate.calls(case, given)
        gradients = case.what == "fwd+bwd"
        entrant = Entrant(candidate.name, call, candidate.backend, candidate.threads, gradients)
        if answer is None:
            return entrant
        with entrant.setting():
            result = answer()
        if candidate.checks:
            right = cases.truth(case, {**case.options, **candidate.options})
            found = cases.errors(case, result, right)
            bounds = dict(zip(("value", "gradient"), cases.TOLERANCE[case.dtype], strict=True))
            errors = {name: error for name, error in found.items() if name in candidate.checks}
            matches[candidate.name] = {
                "errors": {name: float(f"{error:.2g}") for name, error in errors.items()},
                "ok": all(error <= bounds[name] for name, error in errors.items()),
            }
        return entrant

    entry = {**case.describe(), **_interleaved(chosen, enter, threads, effort)}
    right = {name for name, match in matches.items() if match["ok"]}
    for row in entry["candidates"]:
        row["match"] = matches.get(row["name"])
        if row["status"] == "measured":  # a wrong answer has no speed
            ratios_to_right = {name: ratio for name, ratio in row["speedup"].items() if name in right}
            row["speedup"] = ratios_to_right if row["name"] in right else {}
    return entry


def measure_step(name: str, distance: str, optimizer: str, threads: int, effort: Effort) -> dict[str, Any]:
    """Time whole training steps with a distance against those with an empty autograd Function in its place."""

    def enter(participant: Candidate) -> Entrant:
        return step.entrant(distance, optimizer, participant)

    about = {"name": name, "distance": distance, "optimizer": optimizer, "n": step.N, "k": step.K, "dim": step.DIM}
    return {**about, **_interleaved(step.participants(distance), enter, threads, effort)}


def measure_window(
    window: windows.Window, threads: int, effort: Effort, taking_part: Collection[str] | None = None
) -> dict[str, Any]:
    """Time steps over a window that keeps what it can against those that measure the whole window each time."""
    chosen = [c for c in windows.participants(window) if taking_part is None or c.name in taking_part]
    entry = _interleaved(chosen, lambda participant: windows.entrant(window, participant), threads, effort)
    by_name = {candidate.name: candidate for candidate in chosen}
    for row in entry["candidates"]:
        if row["status"] == "measured":
            peak = windows.peak_mib(window, by_name[row["name"]])
            row["peak_mib"] = None if peak is None else round(peak, 2)
    return {**window.describe(), "table": window in windows.TABLE, **entry}


def measure_memory(name: str, case: Case, quick: bool = False) -> dict[str, Any]:
    """Peak memory of the candidates of a case that can end in reasonable time, each in a process of its own."""
    left_out = {"reference", *FLOORS}  # the one takes minutes, the others are no distances
    chosen = [c for c in candidates(case) if c.name not in left_out and c.checks and (not quick or c.backend)]
    found = dict.fromkeys(c.name for c in chosen if c.missing is None)
    if found:
        found |= {result.pop("name"): result for result in memory.measure(case.name, list(found))}
    rows = []
    for candidate in chosen:
        row = {"name": candidate.name, "label": candidate.label}
        rows.append(row | (found.get(candidate.name) or {"reason": candidate.missing}))
    return {**case.describe(), "name": name, "candidates": rows}


def _interleaved(
    chosen: Sequence[Candidate], enter: Callable[[Candidate], Entrant], threads: int, effort: Effort
) -> dict[str, Any]:
    """Warm up and time all who can run, and describe all who were asked."""
    torch.compiler.reset()  # or a second shape would be compiled for every shape
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    started, load_before = time.monotonic(), _load()
    try:
        entrants, reasons = [], {c.name: c.missing for c in chosen if c.missing}
        for candidate in chosen:
            if candidate.missing is None:
                try:
                    entrant = enter(candidate)
                    entrant.warm_up(effort)
                    entrants.append(entrant)
                except Exception as error:
                    reasons[candidate.name] = record.reason(error)
        samples = interleave(entrants, effort)
    finally:
        torch.set_num_threads(threads_before)
    repeats = {entrant.name: entrant.repeats for entrant in entrants}
    baselines = [c.name for c in chosen if c.checks and c.backend is None and c.name in samples]
    rows = []
    for candidate in chosen:
        row: dict[str, Any] = {"name": candidate.name, "label": candidate.label, "note": candidate.note}
        if candidate.name in reasons:
            row |= {"status": "missing" if candidate.missing else "failed", "reason": reasons[candidate.name]}
        else:
            figures = _figures(candidate.name, samples, baselines)
            row |= {"status": "measured", "repeats": repeats[candidate.name], **figures}
        rows.append(row)
    return {
        "threads": threads,
        "load_before": load_before,
        "load_after": _load(),
        "seconds": round(time.monotonic() - started, 1),
        "candidates": rows,
    }


def _figures(name: str, samples: dict[str, list[float]], baselines: Sequence[str]) -> dict[str, Any]:
    """Microseconds, and the per-round ratios to whom they are given against."""
    own = samples[name]
    return {
        "us": _rounded(summary([1e6 * seconds for seconds in own])),
        "speedup": {b: _rounded(ratios(samples[b], own)) for b in baselines if b != name},
        "cost": {f: _rounded(ratios(own, samples[f])) for f in FLOORS if f in samples and f != name},
        "rounds_us": [record.short(1e6 * seconds) for seconds in own],
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: record.short(value) for name, value in figures.items()}


def _load() -> list[float]:
    return [round(load, 2) for load in os.getloadavg()]
