"""The backends: a column of the table each, in the order in which "auto" tries them."""

from mow_kernels import registry
from mow_kernels.backends import cpp, cuda, reference, triton

for _backend in (cuda, triton, cpp, reference):  # the reference takes every call
    registry.add_backend(_backend)
