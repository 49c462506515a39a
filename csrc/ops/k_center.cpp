// The schema of greedy k-centre, for every device: 1 <= k <= rows of x, `start` is the first centre. Both numbers of rows
// are int64. Where rows are centres already, `given`, int64 on the CPU, holds their different numbers, and `start` says
// nothing.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  m.def("k_center(Tensor x, int k, int start, Tensor? given=None) -> (Tensor indices, Tensor squared_radius, Tensor counts)");
}
