"""The kernels of MMD beside the libraries that have them: times and memory."""
