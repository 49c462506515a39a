// Greedy k-centre on CUDA devices, past torch.
#pragma once

#include "cuda/samples.h"

namespace mow::cuda {

// Where a selection of k rows goes: their numbers [k], the square of the covering radius [], the Voronoi counts [k].
template <class T>
struct Centers {
  int64_t* indices;
  T* squared_radius;
  int64_t* counts;
};

template <class T>
int64_t k_center_scratch(int64_t count, int64_t dim);

// 1 <= k <= count < 2^31. Beside so many given rows, different ones whose numbers are on the host, `start` says nothing.
template <class T>
cudaError_t k_center(
    const Rows<T>& rows, int64_t dim, int64_t k, int64_t start, const int64_t* given, int64_t given_count,
    const Centers<T>& centers, void* scratch, cudaStream_t stream);

}  // namespace mow::cuda
