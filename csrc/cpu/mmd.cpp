// Maximum mean discrepancy, equations (1) to (5) of mow_kernels/reference/mmd.py.

#include "cpu/ops.h"
#include "cpu/pairwise.h"
#include "cpu/running.h"

namespace mow::cpu {
namespace {

// tables.mmd: [gaussian, unbiased, scales, C for each scale..., E k(v, v'), parameters of E k(z, v)...], of which the last
// two are for the closed form.
struct Table {
  bool gaussian, unbiased;
  int64_t scales;
  const double* constants;
  const double* normal;
  int64_t normal_size;

  explicit Table(const Tensor& tensor) {
    const auto* numbers = static_cast<const double*>(tensor.data_ptr());
    gaussian = numbers[0] != 0;
    unbiased = numbers[1] != 0;
    scales = int64_t(numbers[2]);
    constants = numbers + 3;
    normal = constants + scales;
    normal_size = tensor.numel() - 3 - scales;
  }
};

template <class T>
RadialNumbers<T> kernel(const Table& table) {
  return table.gaussian ? RadialNumbers<T>::gaussian(table.constants, table.scales)
                        : RadialNumbers<T>::inverse_multiquadric(table.constants, table.scales);
}

// E k(z, v) as a function of |z|^2.
RadialNumbers<double> normal_mean(const Table& table) {
  const double *first = table.normal + 1, *last = table.normal + table.normal_size;
  if (table.gaussian) {
    return RadialNumbers<double>::exponentials({first, first + table.scales}, {first + table.scales, last});
  }
  return RadialNumbers<double>::series(Family::kSeriesOne, first, last - first, 2.0);  // a series in |z|^2/2
}

// Over n rows, against m prior rows or the normal prior.
template <class T>
PairwiseDistance<T> mmd(const Table& table, double n, std::optional<double> m) {
  PairwiseDistance<T> distance{kernel<T>(table), {}};

  // The weight of a pair within `rows` rows; the diagonal, where k is the number of scales, goes into the constant. One
  // row alone has no pairs to weigh.
  const auto within = [&](double rows) {
    if (table.unbiased) return rows > 1 ? 1 / (rows * (rows - 1)) : 0;
    distance.constant += double(table.scales) / rows;
    return 1 / (rows * rows);
  };
  distance.zz = within(n);
  if (m) {
    distance.vv = within(*m);
    distance.zv = -2 / (n * *m);
  } else {
    distance.g = normal_mean(table);
    distance.constant += table.normal[0];
    distance.zv = -2 / n;
  }
  return distance;
}

}  // namespace

std::tuple<Tensor, Tensor> mmd_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = mmd<T>(Table(table), rows_of(current, history), rows_of(prior));
    return evaluate(distance, current, history, prior, needs_grad);
  });
}

std::tuple<Tensor, Tensor> mmd_running_fwd(
    const Tensor& sums, const Tensor& current, int64_t size, int64_t head, int64_t rows, const Tensor& table,
    bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    const auto distance = mmd<T>(Table(table), double(rows + current.size(0)), {});
    return evaluate_running(distance, sums, current, {size, head, rows}, needs_grad);
  });
}

void mmd_running_push(
    const Tensor& sums, const Tensor& rows, int64_t size, int64_t head, int64_t kept, const Tensor& table,
    bool evaluated) {
  with_dtype(rows, [&]<class T>(T) {
    push_running(mmd<T>(Table(table), double(size), {}), sums, rows, {size, head, kept}, evaluated);
  });
}

}  // namespace mow::cpu
