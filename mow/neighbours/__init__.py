"""The neighbouring answers to a batch that is too small: micro-batches, core-sets, the critical batch size."""
