// Greedy k-centre, equation (1) of mow_kernels/reference/k_center.py: all rounds in one call, and no matrix of distances.

#include "cpu/k_center_kernels.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/packed_rows.h"
#include "cpu/parallel.h"
#include "tensors.h"

namespace mow::cpu {
namespace {

// Tiles of a task, the unit of work that one thread takes.
constexpr int64_t kTask = 256;

const CenterKernels<float>& center_kernels(float) { return MOW_BEST_ISA(float_center_kernels); }
const CenterKernels<double>& center_kernels(double) { return MOW_BEST_ISA(double_center_kernels); }

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Takes k rows from `start` on, or beside the centres `given`, which belong to themselves, the owner k.
template <class T>
Tensor select(
    const Tensor& x, int64_t k, int64_t start, std::span<const int64_t> given, int64_t* indices, int64_t* counts) {
  const Rows<T> rows = rows_of<T>(x);
  const int64_t dim = x.size(1), lanes = kernels<T>().tile;
  const int64_t tiles = ceil_divide(rows.count, lanes), tasks = ceil_divide(tiles, kTask);
  const PackedRows<T> packed(rows, dim);
  std::vector<T> nearest(tiles * lanes, T(-1)), center(dim);
  std::fill_n(nearest.begin(), rows.count, std::numeric_limits<T>::infinity());
  std::vector<Number<T>> owner(tiles * lanes, Number<T>(given.empty() ? 0 : k));
  const Cover<T> cover{packed.data, dim, nearest.data(), owner.data()};
  std::vector<Farthest> farthest(tasks);
  Farthest next{0, start};
  Watch watch;
  for (int64_t step = -int64_t(given.size()); step < k; ++step) {
    const int64_t row = step < 0 ? given[step + given.size()] : next.row, taken = step < 0 ? k : step;
    if (step >= 0) indices[step] = row;
    for (int64_t d = 0; d < dim; ++d) center[d] = rows.data[row * rows.row_stride + d * rows.column_stride];
    if (nearest[row] > 0) owner[row] = Number<T>(taken);
    nearest[row] = -1;
    run_tasks(tasks, double(rows.count) * double(dim) > kSerialWork, [&](int64_t task) {
      const int64_t first = task * kTask, last = std::min(first + kTask, tiles);
      farthest[task] = center_kernels(T{}).visit(cover, first, last, center.data(), Number<T>(taken));
    }, &watch);
    if (watch.stopped()) break;
    next = {};
    for (const Farthest& one : farthest) {
      if (one.distance > next.distance) next = one;
    }
  }

  std::fill(counts, counts + k, 0);
  for (int64_t i = 0; i < rows.count; ++i) {
    if (owner[i] < k) ++counts[owner[i]];
  }
  Tensor squared_radius = empty(x, {});
  *static_cast<T*>(squared_radius.data_ptr()) = std::max(T(next.distance), T(0));
  return squared_radius;
}

std::tuple<Tensor, Tensor, Tensor> k_center(
    const Tensor& x, int64_t k, int64_t start, const std::optional<Tensor>& centers) {
  std::span<const int64_t> given;
  if (centers) given = {static_cast<const int64_t*>(centers->data_ptr()), size_t(centers->size(0))};
  Tensor indices = empty(x, aoti_torch_dtype_int64(), {k}), counts = empty(x, aoti_torch_dtype_int64(), {k});
  Tensor squared_radius = with_dtype(x, [&]<class T>(T) {
    return select<T>(
        x, k, start, given, static_cast<int64_t*>(indices.data_ptr()), static_cast<int64_t*>(counts.data_ptr()));
  });
  return {std::move(indices), std::move(squared_radius), std::move(counts)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CPU, m) { m.impl("k_center", TORCH_BOX(&k_center)); }

}  // namespace mow::cpu
