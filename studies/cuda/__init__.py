"""What the compiler says of the CUDA kernels: registers, spills and shared memory."""
