// The distances of csrc/cpu/pairwise.h over a window that is kept from step to step with the sums over its own pairs, so
// that a step visits only the pairs with its k new rows. Against N(0, I), or against a prior sample that is such a window
// itself: as many rows, of which k are new in the same step.
//
// Each row of a window has the sum of f over the rows NEWER than it: new rows add to the sums of the older ones, and a
// row that leaves takes its sum along. Nothing is ever subtracted, so nothing drifts; and the sums of the newest h rows
// are those of a window of h rows, for every h. A pair of a latent and a prior row belongs to the older of the two.
#pragma once

#include <optional>
#include <tuple>

#include "cpu/pairwise.h"

namespace mow::cpu {

// `rows` slots that end just before slot `head` of a ring of `size`, oldest first.
struct Ring {
  int64_t size, head, rows;
};

// What a window keeps, as mow_kernels/running.py lays it out, and its new rows [k, D].
struct KeptSums {
  const Tensor& sums;
  const Tensor& fresh;
};

inline std::optional<KeptSums> kept(const std::optional<Tensor>& sums, const std::optional<Tensor>& fresh) {
  return sums ? std::optional(KeptSums{*sums, *fresh}) : std::nullopt;
}

// The value [] over [the rows of the ring; fresh] and the gradient for the fresh latents [k, D], or [0] where none is
// needed. What pushing them will make of the sums is left beside these.
template <class T>
std::tuple<Tensor, Tensor> evaluate_running(
    const PairwiseDistance<T>& distance, const KeptSums& latents, const std::optional<KeptSums>& prior, const Ring& ring,
    bool needs_grad);

// Writes the fresh rows, k <= size, at the head of a ring whose `ring.rows` older rows are kept. `evaluated`: they are
// those of the last evaluation, which had the same ring, so that no pair with them is visited again.
template <class T>
void push_running(
    const PairwiseDistance<T>& distance, const KeptSums& latents, const std::optional<KeptSums>& prior, const Ring& ring,
    bool evaluated);

}  // namespace mow::cpu
