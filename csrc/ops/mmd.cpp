// The schemas of maximum mean discrepancy, for every device. common/mmd.h has the layout of `table`.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  m.def(
      "mmd_fwd(Tensor current, Tensor history, Tensor? prior, Tensor table, bool needs_grad) -> "
      "(Tensor value, Tensor g_current)");
  m.def("mmd_gradient(Tensor current, Tensor history, Tensor? prior, Tensor table) -> Tensor g_current");

  // Over a window that is kept in `sums` (csrc/cpu/running.h): rows [head - rows, head) of a ring of `size`. To N(0, I), or
  // to a prior sample that is such a window, too: `prior` are its new rows.
  m.def(
      "mmd_running_fwd(Tensor(a!) sums, Tensor current, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int rows, Tensor table, bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "mmd_running_push(Tensor(a!) sums, Tensor rows, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int older, Tensor table, bool evaluated) -> ()");
}
