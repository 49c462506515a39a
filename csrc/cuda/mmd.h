// Maximum mean discrepancy on CUDA devices, past torch.
#pragma once

#include "common/mmd.h"
#include "cuda/pairwise.h"

namespace mow::cuda {

template <class T>
cudaError_t mmd(
    const MmdTable& table, const Samples<T>& samples, const Results<T>& results, void* scratch, cudaStream_t stream);

}  // namespace mow::cuda
