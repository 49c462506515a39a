// Maximum mean discrepancy, mow_kernels/reference/mmd.py: what the op's table says.
#pragma once

#include <cstdint>
#include <optional>

#include "common/distance.h"

namespace mow {

// In the order of mow_kernels.reference.mmd.KERNELS.
enum class MmdKernel { kImq, kGaussian, kEnergy, kLaplacian, kRationalQuadratic, kPolynomial };

// mow_kernels.ops.mmd.table: [kernel, unbiased, how many numbers, these..., E k(v, v'), parameters of E k(z, v)...], of
// which the last two are for the closed form.
struct MmdTable {
  MmdKernel kernel;
  bool unbiased;
  int64_t scales;
  const double* numbers;
  const double* normal;
  int64_t normal_size;

  MmdTable(const double* table, int64_t size)
      : kernel(MmdKernel(int(table[0]))),
        unbiased(table[1] != 0),
        scales(int64_t(table[2])),
        numbers(table + 3),
        normal(numbers + scales),
        normal_size(size - 3 - scales) {}

  // k as a function of |x-y|^2 or x.y.
  template <class T>
  RadialNumbers<T> function() const {
    using Numbers = RadialNumbers<T>;
    switch (kernel) {
      case MmdKernel::kImq:
        return Numbers::inverse_multiquadric(numbers, scales);
      case MmdKernel::kGaussian:
        return Numbers::gaussian(numbers, scales);
      case MmdKernel::kEnergy:
        return Numbers::root();
      case MmdKernel::kLaplacian:
        return Numbers::laplacian(numbers, scales);
      case MmdKernel::kRationalQuadratic:
        return Numbers::rational_quadratic(numbers[0] / 2, numbers + 1, scales - 1);
      case MmdKernel::kPolynomial:
        break;
    }
    return Numbers::products(int(numbers[0]), numbers[1], numbers[2]);
  }

  // k(x, x), where that is the same for every x.
  std::optional<double> at_zero() const {
    if (kernel == MmdKernel::kPolynomial) return std::nullopt;
    if (kernel == MmdKernel::kEnergy) return 0;
    return double(kernel == MmdKernel::kRationalQuadratic ? scales - 1 : scales);
  }

  // E k(z, v) as a function of |z|^2.
  RadialNumbers<double> normal_mean() const {
    using Numbers = RadialNumbers<double>;
    const double *first = normal + 1, *last = normal + normal_size;
    switch (kernel) {
      case MmdKernel::kGaussian:
        return Numbers::exponentials({first, first + scales}, {first + scales, last});
      case MmdKernel::kRationalQuadratic:
        return Numbers::series_of_powers(
            *first, numbers[0] / 2, numbers + 1, scales - 1, first + 1, last - first - 1);
      case MmdKernel::kPolynomial:
        return Numbers::polynomial(first, last - first);
      default:  // a series in |z|^2/2
        break;
    }
    const Family family = kernel == MmdKernel::kEnergy ? Family::kSeriesRoot : Family::kSeriesOne;
    return Numbers::series(family, first, last - first, 2.0);
  }
};

// Over n rows, against m prior rows or the normal prior.
template <class T>
PairwiseDistance<T> mmd_distance(const MmdTable& table, double n, std::optional<double> m) {
  PairwiseDistance<T> distance{table.function<T>(), {}, {}};
  const std::optional<double> at_zero = table.at_zero();
  if (!at_zero && !table.unbiased) distance.d.emplace(table.function<double>());

  // The weight of a pair within `rows` rows; a diagonal of equal numbers goes into the constant. One row alone has no
  // pairs to weigh.
  const auto within = [&](double rows) {
    if (table.unbiased) return rows > 1 ? 1 / (rows * (rows - 1)) : 0;
    distance.constant += at_zero.value_or(0) / rows;
    return 1 / (rows * rows);
  };
  distance.zz = within(n);
  if (m) {
    distance.vv = within(*m);
    distance.zv = -2 / (n * *m);
  } else {
    distance.g.emplace(table.normal_mean());
    distance.constant += table.normal[0];
    distance.zv = -2 / n;
  }
  return distance;
}

}  // namespace mow
