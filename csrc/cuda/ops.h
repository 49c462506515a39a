// The ops of the CUDA backend past torch: they enqueue kernels on a stream of the current device and return at once.
//
// `scratch` is device memory of as many bytes as the function before says, which must live until the stream is past it.
// They return what went wrong in the launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/cramer_wold.h"
#include "common/mmd.h"
#include "cuda/samples.h"

namespace mow::cuda {

// For `mmd` and `cramer_wold`.
template <class T>
int64_t pairwise_scratch(const Samples<T>& samples, bool needs_grad);

template <class T>
cudaError_t mmd(
    const MmdTable& table, const Samples<T>& samples, const Results<T>& results, void* scratch, cudaStream_t stream);

template <class T>
cudaError_t cramer_wold(
    const CramerWoldTable& table, double gamma, const Samples<T>& samples, const Results<T>& results, void* scratch,
    cudaStream_t stream);

template <class T>
int64_t sliced_scratch(const Sliced<T>& problem);

template <class T>
cudaError_t sliced_wasserstein(const Sliced<T>& problem, void* scratch, cudaStream_t stream);

template <class T>
int64_t k_center_scratch(int64_t count, int64_t dim);

// 1 <= k <= count < 2^31.
template <class T>
cudaError_t k_center(
    const Rows<T>& rows, int64_t dim, int64_t k, int64_t start, const Centers<T>& centers, void* scratch,
    cudaStream_t stream);

}  // namespace mow::cuda
