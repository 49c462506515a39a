"""The kernels on a GPU: correct, and how fast.

make gpu                        python -m benchmarks.gpu run: on a machine with a GPU, within eight minutes
python -m benchmarks.gpu static what the compiler says of the Triton kernels, without a GPU
python -m benchmarks.gpu report makes docs/gpu.md from what these two have written
"""
