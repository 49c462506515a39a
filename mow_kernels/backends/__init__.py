"""The backends: a column of the table each, in the order in which "auto" tries them."""

from mow_kernels import registry
from mow_kernels.backends import cpp, cuda, reference, triton

# Of those for GPUs the one with the lower geometric mean of times in the newest record of `make gpu` comes first
# (benchmarks.gpu.report.order; a test holds this to it). There is no record yet.
for _backend in (cuda, triton, cpp, reference):  # the reference takes every call
    registry.add_backend(_backend)
