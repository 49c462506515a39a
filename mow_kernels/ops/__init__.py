"""The operations, a file each: the public function with its checks, and its row of the table."""

from mow_kernels import registry
from mow_kernels.ops import cramer_wold, k_center, mmd, sliced_wasserstein

for _op in (mmd.OP, cramer_wold.OP, sliced_wasserstein.OP, k_center.OP):
    registry.add_op(_op)
