"""The moving window among its neighbours: micro-batches, core-sets and the critical batch size, on one core."""
