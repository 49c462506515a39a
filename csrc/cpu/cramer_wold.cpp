// Cramer-Wold distance; common/cramer_wold.h says what is summed.

#include "common/cramer_wold.h"

#include <torch/csrc/stable/library.h>

#include "cpu/pairwise.h"
#include "cpu/running.h"

namespace mow::cpu {
namespace {

CramerWoldTable table_of(const Tensor& phi) { return {static_cast<const double*>(phi.data_ptr()), phi.numel()}; }

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, window_rows(current, history), prior_rows(prior));
    return evaluate(distance, current, history, prior, needs_grad);
  });
}

Tensor cramer_wold_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, window_rows(current, history), prior_rows(prior));
    return gradient(distance, current, history, prior);
  });
}

std::tuple<Tensor, Tensor> cramer_wold_running_fwd(
    const Tensor& sums, const Tensor& current, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t rows, const Tensor& phi, double gamma, bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const double n = double(rows + current.size(0));
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, n, prior ? std::optional(n) : std::nullopt);
    return evaluate_running(distance, {sums, current}, kept(prior_sums, prior), {size, head, rows}, needs_grad);
  });
}

void cramer_wold_running_push(
    const Tensor& sums, const Tensor& rows, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t older, const Tensor& phi, double gamma, bool evaluated) {
  with_dtype(rows, [&]<class T>(T) {
    const double n = double(size);
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, n, prior ? std::optional(n) : std::nullopt);
    push_running(distance, {sums, rows}, kept(prior_sums, prior), {size, head, older}, evaluated);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CPU, m) {
  m.impl("cramer_wold_fwd", TORCH_BOX(&cramer_wold_fwd));
  m.impl("cramer_wold_gradient", TORCH_BOX(&cramer_wold_gradient));
  m.impl("cramer_wold_running_fwd", TORCH_BOX(&cramer_wold_running_fwd));
  m.impl("cramer_wold_running_push", TORCH_BOX(&cramer_wold_running_push));
}

}  // namespace mow::cpu
