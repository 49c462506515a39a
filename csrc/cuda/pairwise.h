// What the distances of csrc/cuda/pairwise.cuh have in common.
#pragma once

#include "cuda/samples.h"

namespace mow::cuda {

// Bytes that `mmd` and `cramer_wold` take.
template <class T>
int64_t pairwise_scratch(const Samples<T>& samples, bool needs_grad);

}  // namespace mow::cuda
