"""The kernels of the backend "triton", each distance in the file of its name: launchers without autograd or checks.

`mow_kernels/backends/triton.py` makes ops of them, and makes the tensors' device the current one before they launch.
"""
