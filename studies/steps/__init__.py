"""Whole training steps: the trainer's, eager and compiled, beside a plain PyTorch loop around the same distance."""
