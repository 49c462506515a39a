// Cramer-Wold distance; common/cramer_wold.h says what is summed.

#include "common/cramer_wold.h"
#include "cpu/ops.h"
#include "cpu/pairwise.h"
#include "cpu/running.h"

namespace mow::cpu {
namespace {

CramerWoldTable table_of(const Tensor& phi) { return {static_cast<const double*>(phi.data_ptr()), phi.numel()}; }

}  // namespace

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, rows_of(current, history), rows_of(prior));
    return evaluate(distance, current, history, prior, needs_grad);
  });
}

Tensor cramer_wold_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, rows_of(current, history), rows_of(prior));
    return gradient(distance, current, history, prior);
  });
}

std::tuple<Tensor, Tensor> cramer_wold_running_fwd(
    const Tensor& sums, const Tensor& current, int64_t size, int64_t head, int64_t rows, const Tensor& phi, double gamma,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = cramer_wold_distance<T>(table_of(phi), gamma, double(rows + current.size(0)), {});
    return evaluate_running(distance, sums, current, {size, head, rows}, needs_grad);
  });
}

void cramer_wold_running_push(
    const Tensor& sums, const Tensor& rows, int64_t size, int64_t head, int64_t kept, const Tensor& phi, double gamma,
    bool evaluated) {
  with_dtype(rows, [&]<class T>(T) {
    push_running(cramer_wold_distance<T>(table_of(phi), gamma, double(size), {}), sums, rows, {size, head, kept}, evaluated);
  });
}

}  // namespace mow::cpu
