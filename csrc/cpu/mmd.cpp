// Maximum mean discrepancy, equations (1) to (5) of mow_kernels/reference/mmd.py.

#include "cpu/ops.h"
#include "cpu/pairwise.h"
#include "cpu/radial_numbers.h"

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

template <class T>
std::tuple<Tensor, Tensor> mmd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Table& table,
    bool needs_grad) {
  const auto f = kernel<T>(table);
  PairwiseDistance<T> distance{f.radial(), nullptr, 0, 0, 0, 0};

  // The weight of a pair within `rows` rows; the diagonal, where k is the number of scales, goes into the constant. One
  // row alone has no pairs to weigh.
  const auto within = [&](double rows) {
    if (table.unbiased) return rows > 1 ? 1 / (rows * (rows - 1)) : 0;
    distance.constant += double(table.scales) / rows;
    return 1 / (rows * rows);
  };
  const double n = double(current.size(0) + history.size(0));
  distance.zz = within(n);
  if (prior) {
    const double m = double(prior->size(0));
    distance.vv = within(m);
    distance.zv = -2 / (n * m);
    return evaluate(distance, current, history, prior, needs_grad);
  }
  const auto g = normal_mean(table);
  distance.g = &g.radial();
  distance.constant += table.normal[0];
  distance.zv = -2 / n;
  return evaluate(distance, current, history, prior, needs_grad);
}

}  // namespace

std::tuple<Tensor, Tensor> mmd_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad) {
  const bool single = current.scalar_type() == torch::headeronly::ScalarType::Float;
  return (single ? mmd<float> : mmd<double>)(current, history, prior, Table(table), needs_grad);
}

}  // namespace mow::cpu
