// The op on CUDA devices.

#include "cuda/k_center.h"

#include <optional>
#include <utility>

#include "cuda/call.h"

namespace mow::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor> k_center_op(
    const Tensor& x, int64_t k, int64_t start, const std::optional<Tensor>& given) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Tensor indices = empty(x, aoti_torch_dtype_int64(), {k}), counts = empty(x, aoti_torch_dtype_int64(), {k});
  Tensor squared_radius = empty(x, {});
  with_dtype(x, [&]<class T>(T) {
    const Centers<T> centers{
        static_cast<int64_t*>(indices.data_ptr()), static_cast<T*>(squared_radius.data_ptr()),
        static_cast<int64_t*>(counts.data_ptr())};
    enqueue(x, k_center_scratch<T>(x.size(0), x.size(1)), [&](void* scratch, cudaStream_t stream) {
      return k_center(
          rows_of<T>(x), x.size(1), k, start, given ? static_cast<const int64_t*>(given->data_ptr()) : nullptr,
          given ? given->size(0) : 0, centers, scratch, stream);
    });
  });
  return {std::move(indices), std::move(squared_radius), std::move(counts)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) { m.impl("k_center", TORCH_BOX(&k_center_op)); }

}  // namespace mow::cuda
