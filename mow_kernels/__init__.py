"""Distances between a window of samples and a distribution, with a gradient for the newest rows alone."""

from mow_kernels.centers import Centers, k_center
from mow_kernels.checks import check_finite
from mow_kernels.functions import SCALES, cramer_wold, draw_directions, explain, gradient, mmd, sliced_wasserstein
from mow_kernels.registry import Explanation, use_backend
from mow_kernels.running import RunningSums, SortedProjections

__version__ = "0.1.0"

__all__ = [
    "SCALES",
    "Centers",
    "Explanation",
    "RunningSums",
    "SortedProjections",
    "check_finite",
    "cramer_wold",
    "draw_directions",
    "explain",
    "gradient",
    "k_center",
    "mmd",
    "sliced_wasserstein",
    "use_backend",
]
