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

Tensor mmd_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table);

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad);

Tensor cramer_wold_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma);

std::tuple<Tensor, Tensor> mmd_running_fwd(
    const Tensor& sums, const Tensor& current, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t rows, const Tensor& table, bool needs_grad);

void mmd_running_push(
    const Tensor& sums, const Tensor& rows, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t older, const Tensor& table, bool evaluated);

std::tuple<Tensor, Tensor> cramer_wold_running_fwd(
    const Tensor& sums, const Tensor& current, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t rows, const Tensor& phi, double gamma, bool needs_grad);

void cramer_wold_running_push(
    const Tensor& sums, const Tensor& rows, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t older, const Tensor& phi, double gamma, bool evaluated);

std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad);

Tensor sliced_wasserstein_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p);

std::tuple<Tensor, Tensor> sliced_wasserstein_sorted_fwd(
    const Tensor& keys, const Tensor& current, int64_t size, int64_t head, int64_t rows, int64_t list,
    const Tensor& directions, const Tensor& normal, bool needs_grad);

void sliced_wasserstein_sorted_push(
    const Tensor& keys, const Tensor& rows, int64_t size, int64_t head, int64_t older, int64_t list,
    const Tensor& directions, bool evaluated);

std::tuple<Tensor, Tensor, Tensor> k_center(const Tensor& x, int64_t k, int64_t start);

}  // namespace mow::cpu
