// Maximum mean discrepancy on CUDA devices, past torch.
#pragma once

#include "common/mmd.h"
#include "cuda/pairwise.h"
#include "cuda/running.h"

namespace mow::cuda {

template <class T>
cudaError_t mmd(
    const MmdTable& table, const Samples<T>& samples, const Results<T>& results, void* scratch, cudaStream_t stream);

// The same over a window that is kept.
template <class T>
cudaError_t mmd_running(
    const MmdTable& table, const RunningCall<T>& call, const Results<T>& results, void* scratch, cudaStream_t stream);

}  // namespace mow::cuda
