"""The reference backend: the mathematics in plain PyTorch, the definition of right for every other backend.

Each distance takes checked arguments: current [k, D], history [h, D] with h >= 0, prior [m, D] or None for N(0, I) in
closed form, all of one device and of dtype float32 or float64. Any number of derivatives comes from autograd.
"""
