"""The run of `make demo` that the README shows."""
