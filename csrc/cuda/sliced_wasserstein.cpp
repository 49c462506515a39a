// The op on CUDA devices.

#include "cuda/sliced_wasserstein.h"

#include "cuda/call.h"

namespace mow::cuda {
namespace {

std::tuple<Tensor, Tensor> run(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, Wanted wanted) {
  return with_dtype(current, [&]<class T>(T) {
    DeviceCall<T> call(current, history, prior, wanted);
    const int64_t row = directions.dim() - 2, column = row + 1;
    const Sliced<T> problem{
        call.samples,
        {static_cast<const T*>(directions.data_ptr()), directions.size(column), directions.stride(column),
         directions.stride(row)},
        prior ? nullptr : static_cast<const double*>(normal->data_ptr()),
        p,
        call.results,
        row > 0};
    return call.run(sliced_scratch(problem), [&](void* scratch, cudaStream_t stream) {
      return sliced_wasserstein(problem, scratch, stream);
    });
  });
}

std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  return run(current, history, prior, directions, normal, p, wanted(needs_grad));
}

Tensor sliced_wasserstein_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p) {
  return std::get<1>(run(current, history, prior, directions, normal, p, Wanted::kGradient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("sliced_wasserstein_fwd", TORCH_BOX(&sliced_wasserstein_fwd));
  m.impl("sliced_wasserstein_gradient", TORCH_BOX(&sliced_wasserstein_gradient));
}

}  // namespace mow::cuda
