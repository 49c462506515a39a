// The sliced-Wasserstein op: the directions in groups that independent tasks take, and their sums in a fixed order.

#include <algorithm>
#include <cmath>
#include <memory>

#include "cpu/matrix.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"

namespace mow::cpu {
namespace {

// Directions whose slopes [k, directions] are held at once.
constexpr int64_t kChunk = 256;

// Positions in a block of 16 directions are 32-bit numbers.
constexpr int64_t kMostRows = int64_t{1} << 27;

template <class T>
Matrix<T> columns(Matrix<T> m, int64_t first, int64_t count) {
  m.data += first * m.column_stride;
  m.columns = count;
  return m;
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The mean over the directions, if it is `wanted`; g_current [k, D] is left alone where it is null.
template <class T>
double mean_cost(const Slicing<T>& slicing, bool wanted, T* g_current) {
  const SlicedKernels<T>& best = sliced_kernels<T>();
  const int64_t dim = slicing.directions.rows, count = slicing.directions.columns;
  const int64_t k = slicing.current.rows, n = slicing.history.rows + k;
  // Roughly the cycles of a task per direction group: a multiply-add per number, and the network's levels.
  const double levels = std::log2(double(n));
  const double cycles = double(n + slicing.prior.rows) * (double(dim) + levels * levels);
  const bool parallel = cycles * double(ceil_divide(count, best.lanes)) > 2e5;

  const int64_t chunk = std::min(kChunk, ceil_divide(count, best.lanes) * best.lanes);
  const auto costs = std::make_unique_for_overwrite<double[]>(chunk);
  const auto slopes = std::make_unique_for_overwrite<T[]>(g_current ? k * chunk : 0);
  double sum = 0;
  for (int64_t first = 0; first < count; first += chunk) {
    const int64_t here = std::min(chunk, count - first);
    run_tasks(ceil_divide(here, best.lanes), parallel, [&](int64_t task) {
      const int64_t lane = task * best.lanes;
      best.match(
          slicing, first + lane, 1.0 / count, wanted ? &costs[lane] : nullptr, g_current ? &slopes[lane] : nullptr, chunk);
    });
    for (int64_t i = 0; wanted && i < here; ++i) sum += costs[i];
    if (!g_current) continue;
    const bool heavy = double(k) * double(dim) * double(here) > 4e6;
    run_tasks(ceil_divide(k, best.lanes), parallel && heavy, [&](int64_t task) {
      best.spread({slopes.get(), k, here, chunk, 1}, columns(slicing.directions, first, here), task * best.lanes, first > 0,
                  g_current);
    });
  }
  return sum / count;
}

template <class T>
Slicing<T> slicing_of(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p) {
  const int64_t n = history.size(0) + current.size(0);
  STD_TORCH_CHECK(n < kMostRows, "the window has ", n, " rows; backend \"cpp\" takes fewer than ", kMostRows);
  return {
      matrix<T>(history), matrix<T>(current), prior ? matrix<T>(*prior) : Matrix<T>{},
      prior ? nullptr : static_cast<const double*>(normal->data_ptr()) + 1, matrix<T>(directions), p};
}

}  // namespace

// normal, where there is no prior: float64 [1 + n], the mean variance of N(0, 1) inside n equal quantile bins, then the
// bins' means, ascending.
std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  Tensor value = empty(current, {});
  Tensor g_current = needs_grad ? empty(current, {current.size(0), current.size(1)}) : empty(current, {0});
  with_dtype(current, [&]<class T>(T) {
    const auto slicing = slicing_of<T>(current, history, prior, directions, normal, p);
    const double mean = mean_cost(slicing, true, needs_grad ? static_cast<T*>(g_current.data_ptr()) : nullptr);
    const double inside = prior ? 0 : *static_cast<const double*>(normal->data_ptr());
    *static_cast<T*>(value.data_ptr()) = T(inside + mean);
  });
  return {std::move(value), std::move(g_current)};
}

Tensor sliced_wasserstein_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p) {
  Tensor g_current = empty(current, {current.size(0), current.size(1)});
  with_dtype(current, [&]<class T>(T) {
    const auto slicing = slicing_of<T>(current, history, prior, directions, normal, p);
    mean_cost(slicing, false, static_cast<T*>(g_current.data_ptr()));
  });
  return g_current;
}

}  // namespace mow::cpu
