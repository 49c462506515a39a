"""Training: the step as one function, what can be put around it, the trainer, and the stream of pictures."""
