// Cramer-Wold distance on CUDA devices, past torch.
#pragma once

#include "common/cramer_wold.h"
#include "cuda/pairwise.h"
#include "cuda/running.h"

namespace mow::cuda {

template <class T>
cudaError_t cramer_wold(
    const CramerWoldTable& table, double gamma, const Samples<T>& samples, const Results<T>& results, void* scratch,
    cudaStream_t stream);

// The same over a window that is kept.
template <class T>
cudaError_t cramer_wold_running(
    const CramerWoldTable& table, double gamma, const RunningCall<T>& call, const Results<T>& results, void* scratch,
    cudaStream_t stream);

}  // namespace mow::cuda
