"""The reference backend: the mathematics in plain PyTorch, the definition of right for every other backend.

Each distance takes checked arguments: current [k, D], history [h, D] with h >= 0, prior [m, D] or None for N(0, I) in
closed form, all of one device and of dtype float32 or float64. Any number of derivatives comes from autograd.
"""

from collections.abc import Callable

from mow_kernels.reference.cramer_wold import cramer_wold, cramer_wold_to_normal
from mow_kernels.reference.k_center import k_center
from mow_kernels.reference.mmd import mmd, mmd_to_normal
from mow_kernels.reference.pairs import Pairwise
from mow_kernels.reference.sliced_wasserstein import sliced_wasserstein

__all__ = ["cramer_wold", "k_center", "mmd", "sliced_wasserstein"]

TO_NORMAL: dict[str, Callable[..., Pairwise]] = {"cramer_wold": cramer_wold_to_normal, "mmd": mmd_to_normal}
"""op -> function(n, dim, **options) that gives the distance to N(0, I) as a `pairs.Pairwise`, where it is one."""
