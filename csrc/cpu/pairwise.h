// The distances of common/distance.h between a window [history; current] and a prior.
#pragma once

#include <optional>
#include <tuple>

#include "common/distance.h"
#include "tensors.h"

namespace mow::cpu {

inline double window_rows(const Tensor& current, const Tensor& history) {
  return double(current.size(0) + history.size(0));
}

inline std::optional<double> prior_rows(const std::optional<Tensor>& prior) {
  return prior ? std::optional(double(prior->size(0))) : std::nullopt;
}

// The value [] and the gradient for current [k, D], or [0] where none is needed.
template <class T>
std::tuple<Tensor, Tensor> evaluate(
    const PairwiseDistance<T>& distance, const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior,
    bool needs_grad);

// That gradient by itself: the same bits, without the pairs that have no current row.
template <class T>
Tensor gradient(
    const PairwiseDistance<T>& distance, const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior);

}  // namespace mow::cpu
