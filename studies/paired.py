"""Differences of runs that share a seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy.stats import t as student

CONFIDENCE = 0.95


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """The mean of two differences or more between the limits of its 95 % interval: Student's t."""
    mean, count = statistics.fmean(differences), len(differences)
    half = student.ppf((1 + CONFIDENCE) / 2, count - 1) * statistics.stdev(differences) / count**0.5
    return mean - half, mean, mean + half
