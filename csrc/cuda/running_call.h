// From the tensors of an op over a kept window to csrc/cuda/running.h.
#pragma once

#include "cuda/call.h"
#include "cuda/running.h"

namespace mow::cuda {

template <class T>
RunningCall<T> running_call(
    const Tensor& sums, const Tensor& fresh, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t rows) {
  return {
      KeptRows<T>::of(sums.data_ptr(), size),
      prior_sums ? KeptRows<T>::of(prior_sums->data_ptr(), size) : KeptRows<T>{},
      rows_of<T>(fresh),
      rows_of<T>(prior),
      size,
      rows,
      fresh.size(1)};
}

template <class T>
void push_rows(const RunningCall<T>& call, const Tensor& fresh, int64_t head) {
  const torch::stable::accelerator::DeviceGuard guard(fresh.get_device_index());
  enqueue(fresh, 0, [&](void*, cudaStream_t stream) { return push_running(call, head, stream); });
}

}  // namespace mow::cuda
