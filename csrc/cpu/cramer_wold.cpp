// Cramer-Wold distance, equations (1) and (2) of mow_kernels/reference/cramer_wold.py.

#include <cmath>
#include <numbers>

#include "cpu/ops.h"
#include "cpu/pairwise.h"
#include "cpu/radial_numbers.h"

namespace mow::cpu {
namespace {

// phi(r / width); no table stands for phi_1(s) = exp(-s).
template <class T>
RadialNumbers<T> phi_of(const Tensor& table, double width) {
  if (table.numel() == 0) return RadialNumbers<T>::exponentials({1.0}, {1 / width});
  return RadialNumbers<T>::series(
      Family::kSeriesHalf, static_cast<const double*>(table.data_ptr()), table.numel(), width);
}

template <class T>
std::tuple<Tensor, Tensor> cramer_wold(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  const double n = double(current.size(0) + history.size(0));
  const double factor = 1 / (2 * std::sqrt(std::numbers::pi));
  const double root = std::sqrt(gamma);
  const auto f = phi_of<T>(phi, 4 * gamma);
  PairwiseDistance<T> distance{f.radial(), nullptr, factor / (n * root), factor / (n * n * root), 0, 0};
  if (prior) {
    const double m = double(prior->size(0));
    distance.constant += factor / (m * root);  // phi(0) = 1 on both diagonals
    distance.vv = factor / (m * m * root);
    distance.zv = -2 * factor / (n * m * root);
    return evaluate(distance, current, history, prior, needs_grad);
  }
  const auto g = phi_of<double>(phi, 2 + 4 * gamma);
  distance.g = &g.radial();
  distance.constant += factor / std::sqrt(1 + gamma);
  distance.zv = -2 * factor / (n * std::sqrt(gamma + 0.5));
  return evaluate(distance, current, history, prior, needs_grad);
}

}  // namespace

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  const bool single = current.scalar_type() == torch::headeronly::ScalarType::Float;
  return (single ? cramer_wold<float> : cramer_wold<double>)(current, history, prior, phi, gamma, needs_grad);
}

}  // namespace mow::cpu
