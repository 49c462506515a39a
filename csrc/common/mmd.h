// Maximum mean discrepancy, equations (1) to (5) of mow_kernels/reference/mmd.py: what the op's table says.
#pragma once

#include <cstdint>
#include <optional>

#include "common/distance.h"

namespace mow {

// tables.mmd: [gaussian, unbiased, scales, C for each scale..., E k(v, v'), parameters of E k(z, v)...], of which the last
// two are for the closed form.
struct MmdTable {
  bool gaussian, unbiased;
  int64_t scales;
  const double* constants;
  const double* normal;
  int64_t normal_size;

  MmdTable(const double* numbers, int64_t size)
      : gaussian(numbers[0] != 0),
        unbiased(numbers[1] != 0),
        scales(int64_t(numbers[2])),
        constants(numbers + 3),
        normal(constants + scales),
        normal_size(size - 3 - scales) {}

  template <class T>
  RadialNumbers<T> kernel() const {
    return gaussian ? RadialNumbers<T>::gaussian(constants, scales)
                    : RadialNumbers<T>::inverse_multiquadric(constants, scales);
  }

  // E k(z, v) as a function of |z|^2.
  RadialNumbers<double> normal_mean() const {
    const double *first = normal + 1, *last = normal + normal_size;
    if (gaussian) return RadialNumbers<double>::exponentials({first, first + scales}, {first + scales, last});
    return RadialNumbers<double>::series(Family::kSeriesOne, first, last - first, 2.0);  // a series in |z|^2/2
  }
};

// Over n rows, against m prior rows or the normal prior.
template <class T>
PairwiseDistance<T> mmd_distance(const MmdTable& table, double n, std::optional<double> m) {
  PairwiseDistance<T> distance{table.kernel<T>(), {}};

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
    distance.g.emplace(table.normal_mean());
    distance.constant += table.normal[0];
    distance.zv = -2 / n;
  }
  return distance;
}

}  // namespace mow
