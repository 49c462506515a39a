// What more than one of the distances of pairwise.cuh takes.

#include "cuda/pairwise.cuh"

#include "cuda/pairwise.h"

namespace mow::cuda {

bool has_warpgroups() {
  cudaFuncAttributes attributes{};
  const auto kernel = reinterpret_cast<const void*>(&pairwise_warpgroup_tiles<float, Family::kExponentials>);
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.maxThreadsPerBlock >= kThreads;
}

template <class T>
int64_t pairwise_scratch(const Samples<T>& samples, bool needs_grad) {
  return Plan::make(samples, needs_grad).scratch;
}

template int64_t pairwise_scratch(const Samples<float>&, bool);
template int64_t pairwise_scratch(const Samples<double>&, bool);
template cudaError_t run(const Pairwise<float, Family::kExponentials>&, void*, cudaStream_t);
template cudaError_t run(const Pairwise<double, Family::kExponentials>&, void*, cudaStream_t);

}  // namespace mow::cuda
