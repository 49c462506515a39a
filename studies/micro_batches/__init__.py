"""Micro-batches: that their gradient is the batch's, and what they need of memory."""
