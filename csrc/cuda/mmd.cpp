// The op on CUDA devices.

#include "cuda/mmd.h"

#include "cuda/call.h"

namespace mow::cuda {
namespace {

std::tuple<Tensor, Tensor> run(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table, Wanted wanted) {
  return with_dtype(current, [&]<class T>(T) {
    DeviceCall<T> call(current, history, prior, wanted);
    const MmdTable numbers(static_cast<const double*>(table.data_ptr()), table.numel());
    return call.run(pairwise_scratch(call.samples, wanted != Wanted::kValue), [&](void* scratch, cudaStream_t stream) {
      return mmd(numbers, call.samples, call.results, scratch, stream);
    });
  });
}

std::tuple<Tensor, Tensor> mmd_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad) {
  return run(current, history, prior, table, wanted(needs_grad));
}

Tensor mmd_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table) {
  return std::get<1>(run(current, history, prior, table, Wanted::kGradient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("mmd_fwd", TORCH_BOX(&mmd_fwd));
  m.impl("mmd_gradient", TORCH_BOX(&mmd_gradient));
}

}  // namespace mow::cuda
