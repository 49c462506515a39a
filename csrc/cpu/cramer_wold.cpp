// Cramer-Wold distance, equations (1) and (2) of mow_kernels/reference/cramer_wold.py.

#include <cmath>
#include <numbers>

#include "cpu/ops.h"
#include "cpu/pairwise.h"
#include "cpu/running.h"

namespace mow::cpu {
namespace {

// phi(r / width); no table stands for phi_1(s) = exp(-s).
template <class T>
RadialNumbers<T> phi_of(const Tensor& table, double width) {
  if (table.numel() == 0) return RadialNumbers<T>::exponentials({1.0}, {1 / width});
  return RadialNumbers<T>::series(
      Family::kSeriesHalf, static_cast<const double*>(table.data_ptr()), table.numel(), width);
}

// Over n rows, against m prior rows or the normal prior.
template <class T>
PairwiseDistance<T> cramer_wold(const Tensor& phi, double gamma, double n, std::optional<double> m) {
  const double factor = 1 / (2 * std::sqrt(std::numbers::pi));
  const double root = std::sqrt(gamma);
  PairwiseDistance<T> distance{phi_of<T>(phi, 4 * gamma), {}};
  distance.constant = factor / (n * root);  // phi(0) = 1 on the diagonal
  distance.zz = factor / (n * n * root);
  if (m) {
    distance.constant += factor / (*m * root);
    distance.vv = factor / (*m * *m * root);
    distance.zv = -2 * factor / (n * *m * root);
  } else {
    distance.g = phi_of<double>(phi, 2 + 4 * gamma);
    distance.constant += factor / std::sqrt(1 + gamma);
    distance.zv = -2 * factor / (n * std::sqrt(gamma + 0.5));
  }
  return distance;
}

}  // namespace

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold<T>(phi, gamma, rows_of(current, history), rows_of(prior));
    return evaluate(distance, current, history, prior, needs_grad);
  });
}

std::tuple<Tensor, Tensor> cramer_wold_running_fwd(
    const Tensor& sums, const Tensor& current, int64_t size, int64_t head, int64_t rows, const Tensor& phi, double gamma,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold<T>(phi, gamma, double(rows + current.size(0)), {});
    return evaluate_running(distance, sums, current, {size, head, rows}, needs_grad);
  });
}

void cramer_wold_running_push(
    const Tensor& sums, const Tensor& rows, int64_t size, int64_t head, int64_t kept, const Tensor& phi, double gamma,
    bool evaluated) {
  with_dtype(rows, [&]<class T>(T) {
    push_running(cramer_wold<T>(phi, gamma, double(size), {}), sums, rows, {size, head, kept}, evaluated);
  });
}

}  // namespace mow::cpu
