// What more than one of the distances of pairwise.cuh takes.

#include "cuda/pairwise.cuh"

#include "cuda/pairwise.h"

namespace mow::cuda {

template <class T>
int64_t pairwise_scratch(const Samples<T>& samples, bool needs_grad) {
  return Plan::make(samples, needs_grad).scratch;
}

template int64_t pairwise_scratch(const Samples<float>&, bool);
template int64_t pairwise_scratch(const Samples<double>&, bool);
template cudaError_t run(const Pairwise<float, Family::kExponentials>&, void*, cudaStream_t);
template cudaError_t run(const Pairwise<double, Family::kExponentials>&, void*, cudaStream_t);

}  // namespace mow::cuda
