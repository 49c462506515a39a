"""Distances between a window of samples and a distribution, with a gradient for the newest rows alone."""

from mow_kernels import backends as _backends  # noqa: F401  # their columns of the table
from mow_kernels import checks
from mow_kernels.calls import Explanation, differentiable, distance_row, explain, gradient, to_normal, use_backend
from mow_kernels.checks import check_finite
from mow_kernels.ops.cramer_wold import cramer_wold
from mow_kernels.ops.k_center import Centers, k_center
from mow_kernels.ops.mmd import SCALES, default_scales, mmd
from mow_kernels.ops.sliced_wasserstein import SortedProjections, draw_directions, sliced_wasserstein
from mow_kernels.reference.sums import Pairwise, Sliced
from mow_kernels.registry import DistanceOp, Keeps, Newest
from mow_kernels.ring import Ring
from mow_kernels.running import Running, RunningSums, begin_running, why_not_running

__version__ = "0.1.0"

__all__ = [
    "SCALES",
    "Centers",
    "DistanceOp",
    "Explanation",
    "Keeps",
    "Newest",
    "Pairwise",
    "Ring",
    "Running",
    "RunningSums",
    "Sliced",
    "SortedProjections",
    "begin_running",
    "check_finite",
    "checks",
    "cramer_wold",
    "default_scales",
    "differentiable",
    "distance_row",
    "draw_directions",
    "explain",
    "gradient",
    "k_center",
    "mmd",
    "sliced_wasserstein",
    "to_normal",
    "use_backend",
    "why_not_running",
]
