// Maximum mean discrepancy; common/mmd.h says what is summed.

#include "common/mmd.h"

#include <torch/csrc/stable/library.h>

#include "cpu/pairwise.h"
#include "cpu/running.h"

namespace mow::cpu {
namespace {

MmdTable table_of(const Tensor& numbers) {
  return MmdTable(static_cast<const double*>(numbers.data_ptr()), numbers.numel());
}

std::tuple<Tensor, Tensor> mmd_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = mmd_distance<T>(table_of(table), window_rows(current, history), prior_rows(prior));
    return evaluate(distance, current, history, prior, needs_grad);
  });
}

Tensor mmd_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = mmd_distance<T>(table_of(table), window_rows(current, history), prior_rows(prior));
    return gradient(distance, current, history, prior);
  });
}

std::tuple<Tensor, Tensor> mmd_running_fwd(
    const Tensor& sums, const Tensor& current, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t rows, const Tensor& table, bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const double n = double(rows + current.size(0));
    const auto distance = mmd_distance<T>(table_of(table), n, prior ? std::optional(n) : std::nullopt);
    return evaluate_running(distance, {sums, current}, kept(prior_sums, prior), {size, head, rows}, needs_grad);
  });
}

void mmd_running_push(
    const Tensor& sums, const Tensor& rows, const std::optional<Tensor>& prior_sums, const std::optional<Tensor>& prior,
    int64_t size, int64_t head, int64_t older, const Tensor& table, bool evaluated) {
  with_dtype(rows, [&]<class T>(T) {
    const double n = double(size);
    const auto distance = mmd_distance<T>(table_of(table), n, prior ? std::optional(n) : std::nullopt);
    push_running(distance, {sums, rows}, kept(prior_sums, prior), {size, head, older}, evaluated);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CPU, m) {
  m.impl("mmd_fwd", TORCH_BOX(&mmd_fwd));
  m.impl("mmd_gradient", TORCH_BOX(&mmd_gradient));
  m.impl("mmd_running_fwd", TORCH_BOX(&mmd_running_fwd));
  m.impl("mmd_running_push", TORCH_BOX(&mmd_running_push));
}

}  // namespace mow::cpu
