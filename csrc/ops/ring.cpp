// The schemas of a ring of rows whose head is in device memory, for devices alone: on a host a window computes its slots.
// `head` is 0-d int64, the slot that is written next.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  // The newest `count` rows [count, D], oldest first.
  m.def("ring_newest(Tensor ring, Tensor head, int count) -> Tensor rows");

  // Writes at most as many rows as there are slots, and moves the head.
  m.def("ring_push(Tensor(a!) ring, Tensor(b!) head, Tensor rows) -> ()");
}
