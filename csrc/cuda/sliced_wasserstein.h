// Sliced-Wasserstein distance on CUDA devices, past torch.
#pragma once

#include "cuda/samples.h"

namespace mow::cuda {

template <class T>
struct Sliced {
  Samples<T> samples;
  Rows<T> directions;  // [L, D]: the directions as rows
  // For N(0, I) in device memory: [1 + n], the mean variance inside n equal quantile bins, then the bins' means, ascending.
  const double* bins;
  double p;
  Results<T> results;
  bool drawn = false;  // the directions are draws from N(0, I), to be divided by their norms
};

template <class T>
int64_t sliced_scratch(const Sliced<T>& problem);

template <class T>
cudaError_t sliced_wasserstein(const Sliced<T>& problem, void* scratch, cudaStream_t stream);

}  // namespace mow::cuda
