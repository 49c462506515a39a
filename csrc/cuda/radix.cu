#include "cuda/radix.h"

#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>
#else  // on the CPU, where the kernels are tested: what CUB promises
#include <algorithm>
#endif

namespace mow::cuda {

#if defined(__CUDACC__)

int64_t radix_scratch(int64_t count, int first, int end) {
  cub::DoubleBuffer<uint64_t> both;
  size_t bytes = 0;
  const cudaError_t failed = cub::DeviceRadixSort::SortKeys(nullptr, bytes, both, count, first, end);
  return failed == cudaSuccess ? int64_t(bytes) : -1;
}

cudaError_t radix_sort(
    uint64_t*& words, uint64_t*& spare, int64_t count, int first, int end, void* scratch, int64_t bytes,
    cudaStream_t stream) {
  cub::DoubleBuffer<uint64_t> both(words, spare);
  size_t given = size_t(bytes);
  const cudaError_t failed = cub::DeviceRadixSort::SortKeys(scratch, given, both, count, first, end, stream);
  words = both.Current(), spare = both.Alternate();
  return failed;
}

#else

int64_t radix_scratch(int64_t, int, int) { return 1; }

cudaError_t radix_sort(
    uint64_t*& words, uint64_t*&, int64_t count, int first, int end, void*, int64_t, cudaStream_t) {
  const auto digits = [=](uint64_t word) { return (end < 64 ? word & ((uint64_t(1) << end) - 1) : word) >> first; };
  std::stable_sort(words, words + count, [=](uint64_t a, uint64_t b) { return digits(a) < digits(b); });
  return cudaSuccess;
}

#endif

}  // namespace mow::cuda
