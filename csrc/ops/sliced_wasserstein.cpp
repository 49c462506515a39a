// The schemas of the sliced-Wasserstein distance, for every device.
//
// `directions` is [D, L]; or [1, D, L], draws from N(0, I) in float32 that the first two ops divide by their norms. `normal`, where there is no prior: float64 [1 + n] on the device of `current`, the mean variance
// of N(0, 1) inside n equal quantile bins, then the bins' means, ascending.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  m.def(
      "sliced_wasserstein_fwd(Tensor current, Tensor history, Tensor? prior, Tensor directions, Tensor? normal, float p, "
      "bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "sliced_wasserstein_gradient(Tensor current, Tensor history, Tensor? prior, Tensor directions, Tensor? normal, "
      "float p) -> Tensor g_current");

  // Over a window whose projections are kept sorted in `keys` (csrc/cpu/sliced_wasserstein_sorted.h): rows
  // [head - rows, head) of a ring of `size`.
  m.def(
      "sliced_wasserstein_sorted_fwd(Tensor(a!) keys, Tensor current, int size, int head, int rows, int list, "
      "Tensor directions, Tensor normal, bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "sliced_wasserstein_sorted_push(Tensor(a!) keys, Tensor rows, int size, int head, int older, int list, "
      "Tensor directions, bool evaluated) -> ()");
}
