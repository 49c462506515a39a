// The ops on the CPU; csrc/library.cpp has their schemas.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

namespace mow::cpu {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor> mmd_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad);

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad);

std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad);

}  // namespace mow::cpu
