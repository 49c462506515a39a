// The schemas of the Cramer-Wold distance, for every device. common/cramer_wold.h has the layout of `phi`.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  m.def(
      "cramer_wold_fwd(Tensor current, Tensor history, Tensor? prior, Tensor phi, float gamma, bool needs_grad) -> "
      "(Tensor value, Tensor g_current)");
  m.def("cramer_wold_gradient(Tensor current, Tensor history, Tensor? prior, Tensor phi, float gamma) -> Tensor g_current");

  // Over a window that is kept in `sums`, as for mmd_running_fwd (csrc/ops/mmd.cpp).
  m.def(
      "cramer_wold_running_fwd(Tensor(a!) sums, Tensor current, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int rows, Tensor phi, float gamma, bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "cramer_wold_running_push(Tensor(a!) sums, Tensor rows, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int older, Tensor phi, float gamma, bool evaluated) -> ()");
}
