// The op on CUDA devices.

#include "cuda/mmd.h"

#include "cuda/call.h"
#include "cuda/running_call.h"

namespace mow::cuda {
namespace {

std::tuple<Tensor, Tensor> run(
    const Tensor& current, const History& history, const std::optional<Tensor>& prior, const Tensor& table, Wanted wanted) {
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
  return run(current, {history}, prior, table, wanted(needs_grad));
}

Tensor mmd_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table) {
  return std::get<1>(run(current, {history}, prior, table, Wanted::kGradient));
}

std::tuple<Tensor, Tensor> mmd_ring(
    const Tensor& current, const Tensor& ring, const Tensor& head, int64_t rows, const std::optional<Tensor>& prior,
    const Tensor& table, bool measure) {
  return run(current, {ring, &head, rows}, prior, table, measured(measure));
}

std::tuple<Tensor, Tensor> mmd_running_fwd(
    const Tensor& sums, const Tensor& current, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t, int64_t rows, const Tensor& table, bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    DeviceCall<T> call(current, {current}, prior, wanted(needs_grad));
    const MmdTable numbers(static_cast<const double*>(table.data_ptr()), table.numel());
    const auto kept = running_call<T>(sums, current, prior_sums, prior, size, rows);
    const int64_t bytes = running_scratch(size, current.size(0), current.size(1), bool(prior));
    return call.run(bytes, [&](void* scratch, cudaStream_t stream) {
      return mmd_running(numbers, kept, call.results, scratch, stream);
    });
  });
}

void mmd_running_push(
    const Tensor& sums, const Tensor& rows, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t older, const Tensor&, bool) {
  with_dtype(rows, [&]<class T>(T) {
    push_rows(running_call<T>(sums, rows, prior_sums, prior, size, older), rows, head);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  // The gradient, and with `measure` the value, where the history are the newest `rows` of a ring (csrc/cuda/ring.cpp).
  m.def(
      "mmd_ring(Tensor current, Tensor ring, Tensor head, int rows, Tensor? prior, Tensor table, bool measure) -> "
      "(Tensor value, Tensor g_current)");
}

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("mmd_fwd", TORCH_BOX(&mmd_fwd));
  m.impl("mmd_gradient", TORCH_BOX(&mmd_gradient));
  m.impl("mmd_ring", TORCH_BOX(&mmd_ring));
  m.impl("mmd_running_fwd", TORCH_BOX(&mmd_running_fwd));
  m.impl("mmd_running_push", TORCH_BOX(&mmd_running_push));
}

}  // namespace mow::cuda
