// A ring of rows whose head is in device memory: ops for devices alone, since on a host a window computes its slots. `head`
// is 0-d int64, the slot that is written next.

#include "cuda/ring.h"

#include "cuda/call.h"

namespace mow::cuda {
namespace {

template <class T>
Ring<T> ring_of(const Tensor& ring, const Tensor& head) {
  return {static_cast<T*>(ring.data_ptr()), ring.size(0), ring.size(1), ring.stride(0), ring.stride(1),
          static_cast<int64_t*>(head.data_ptr())};
}

Tensor newest(const Tensor& ring, const Tensor& head, int64_t count) {
  const torch::stable::accelerator::DeviceGuard guard(ring.get_device_index());
  Tensor rows = empty(ring, {count, ring.size(1)});
  with_dtype(ring, [&]<class T>(T) {
    enqueue(ring, 0, [&](void*, cudaStream_t stream) {
      return ring_newest(ring_of<T>(ring, head), count, static_cast<T*>(rows.data_ptr()), stream);
    });
  });
  return rows;
}

void push(const Tensor& ring, const Tensor& head, const Tensor& rows) {
  const torch::stable::accelerator::DeviceGuard guard(ring.get_device_index());
  with_dtype(ring, [&]<class T>(T) {
    enqueue(ring, 0, [&](void*, cudaStream_t stream) {
      return ring_push(ring_of<T>(ring, head), rows_of<T>(rows), stream);
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  // The newest `count` rows [count, D], oldest first.
  m.def("ring_newest(Tensor ring, Tensor head, int count) -> Tensor rows");

  // Writes at most as many rows as there are slots, and moves the head.
  m.def("ring_push(Tensor(a!) ring, Tensor(b!) head, Tensor rows) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("ring_newest", TORCH_BOX(&newest));
  m.impl("ring_push", TORCH_BOX(&push));
}

}  // namespace mow::cuda
