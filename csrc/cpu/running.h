// The distances of csrc/cpu/pairwise.h without a prior sample, over a window that is kept from step to step with the sums
// over its own pairs, so that a step visits only the pairs with its k new rows.
//
// Each row of the window has the sum of f over the rows NEWER than it: new rows add to the sums of the older ones, and a
// row that leaves takes its sum along. Nothing is ever subtracted, so nothing drifts; and the sums of the newest h rows
// are those of a window of h rows, for every h.
#pragma once

#include <tuple>

#include "cpu/pairwise.h"

namespace mow::cpu {

// `rows` slots that end just before slot `head` of a ring of `size`, oldest first.
struct Ring {
  int64_t size, head, rows;
};

// The value [] over [the rows of the ring; current] and the gradient for current [k, D], or [0] where none is needed.
// `sums` is as mow_kernels/running.py lays it out. What pushing `current` will make of them is left beside them.
template <class T>
std::tuple<Tensor, Tensor> evaluate_running(
    const PairwiseDistance<T>& distance, const Tensor& sums, const Tensor& current, const Ring& ring, bool needs_grad);

// Writes new rows [k, D], k <= size, at the head of a ring whose `ring.rows` older rows are kept. `evaluated`: they are
// the `current` of the last evaluation, which had the same ring, so that no pair with them is visited again.
template <class T>
void push_running(
    const PairwiseDistance<T>& distance, const Tensor& sums, const Tensor& rows, const Ring& ring, bool evaluated);

}  // namespace mow::cpu
