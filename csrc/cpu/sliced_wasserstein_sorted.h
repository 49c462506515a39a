// The sliced-Wasserstein distance to N(0, I) over a window whose projections on fixed directions are kept sorted from step
// to step: k rows leave each sorted list and k enter it, which moves numbers and neither projects nor sorts the others.
#pragma once

#include <tuple>

#include "tensors.h"

namespace mow::cpu {

// What SortedProjections of mow_kernels/running.py keeps of a window of `size` rows, for each of L directions: the keys of the
// projections by slot, and two lists of which number `current` has the `rows` keys ascending; the other is for the next.
struct SortedWindow {
  const Tensor& keys;  // [3, L, size], integers as wide as the type of the rows: by slot, list 0, list 1
  int64_t size, head, rows, current;
};

// The value [] over [the newest min(rows, size - k) rows; fresh] and the gradient for fresh [k, D], or [0] where none is
// needed. The sorted window with them is left in the other list. normal: as for sliced_wasserstein_fwd.
template <class T>
std::tuple<Tensor, Tensor> evaluate_sorted(
    const SortedWindow& window, const Tensor& fresh, const Tensor& directions, const Tensor& normal, bool needs_grad);

// Writes fresh rows [k, D], k <= size, at the head, and the sorted window with them to the other list, where it is already
// if they were `evaluated` last.
template <class T>
void push_sorted(const SortedWindow& window, const Tensor& fresh, const Tensor& directions, bool evaluated);

}  // namespace mow::cpu
