// The distances of common/distance.h between a window [history; current] and a prior.
#pragma once

#include <optional>
#include <tuple>

#include "common/distance.h"
#include "cpu/tensors.h"

namespace mow::cpu {

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
