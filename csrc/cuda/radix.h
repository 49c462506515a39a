// Sorting words by some of their bits, past CUB's headers, which take nvcc half a minute.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mow::cuda {

// Bytes of scratch that `radix_sort` takes on the current device; negative where it says that it cannot.
int64_t radix_scratch(int64_t count, int first, int end);

// Sorts by bits [first, end), ascending; words that are equal there stay in their order. The result is in `words` then,
// which may have been exchanged with `spare`.
cudaError_t radix_sort(
    uint64_t*& words, uint64_t*& spare, int64_t count, int first, int end, void* scratch, int64_t bytes,
    cudaStream_t stream);

}  // namespace mow::cuda
