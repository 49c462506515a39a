// Cramer-Wold distance, equations (1) and (2) of mow_kernels/reference/cramer_wold.py: what the op's table says.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>

#include "common/distance.h"

namespace mow {

// The numbers are tables.cramer_wold's.
struct CramerWoldTable {
  const double* numbers;
  int64_t size;

  // phi(r / width); no table stands for phi_1(s) = exp(-s).
  template <class T>
  RadialNumbers<T> phi(double width) const {
    if (size == 0) return RadialNumbers<T>::exponentials({1.0}, {1 / width});
    return RadialNumbers<T>::series(Family::kSeriesHalf, numbers, size, width);
  }
};

// Over n rows, against m prior rows or the normal prior.
template <class T>
PairwiseDistance<T> cramer_wold_distance(
    const CramerWoldTable& table, double gamma, double n, std::optional<double> m) {
  constexpr double pi = 3.14159265358979323846;  // nvcc may have no C++20
  const double factor = 1 / (2 * std::sqrt(pi)), root = std::sqrt(gamma);
  PairwiseDistance<T> distance{table.phi<T>(4 * gamma), {}, {}};
  distance.constant = factor / (n * root);  // phi(0) = 1 on the diagonal
  distance.zz = factor / (n * n * root);
  if (m) {
    distance.constant += factor / (*m * root);
    distance.vv = factor / (*m * *m * root);
    distance.zv = -2 * factor / (n * *m * root);
  } else {
    distance.g.emplace(table.phi<double>(2 + 4 * gamma));
    distance.constant += factor / std::sqrt(1 + gamma);
    distance.zv = -2 * factor / (n * std::sqrt(gamma + 0.5));
  }
  return distance;
}

}  // namespace mow
