"""Which distance, which n, k, weighting: what the results of the other studies say of it."""
