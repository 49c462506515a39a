// The op on CUDA devices.

#include "cuda/cramer_wold.h"

#include "cuda/call.h"

namespace mow::cuda {
namespace {

std::tuple<Tensor, Tensor> run(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma, Wanted wanted) {
  return with_dtype(current, [&]<class T>(T) {
    DeviceCall<T> call(current, history, prior, wanted);
    const CramerWoldTable table{static_cast<const double*>(phi.data_ptr()), phi.numel()};
    return call.run(pairwise_scratch(call.samples, wanted != Wanted::kValue), [&](void* scratch, cudaStream_t stream) {
      return cramer_wold(table, gamma, call.samples, call.results, scratch, stream);
    });
  });
}

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  return run(current, history, prior, phi, gamma, wanted(needs_grad));
}

Tensor cramer_wold_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma) {
  return std::get<1>(run(current, history, prior, phi, gamma, Wanted::kGradient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("cramer_wold_fwd", TORCH_BOX(&cramer_wold_fwd));
  m.impl("cramer_wold_gradient", TORCH_BOX(&cramer_wold_gradient));
}

}  // namespace mow::cuda
