"""What a larger window buys.

The same pictures in the same order of each seed, and the same number of them, for windows of n, in three ways: one new
picture a step; the same, with the whole window encoded again every 64 steps; and k = n / 64.
"""
