// Distances between a window z and a prior v that are weighted sums of a function over pairs.
#pragma once

#include <optional>

#include "common/radial_numbers.h"

namespace mow {

// constant + zz sum_{i != j} f(|z_i - z_j|^2) + vv sum_{i != j} f(|v_i - v_j|^2) + zv sum_ij f(|z_i - v_j|^2), and
// without a prior sample constant + zz sum_{i != j} f(|z_i - z_j|^2) + zv sum_i g(|z_i|^2). Where f is a function of
// products, its values at z_i z_i and v_i v_i may be wanted, too: they are d, and weigh zz and vv.
template <class T>
struct PairwiseDistance {
  RadialNumbers<T> f;
  std::optional<RadialNumbers<double>> g;  // none where there is a prior sample
  std::optional<RadialNumbers<double>> d;
  double constant = 0, zz = 0, vv = 0, zv = 0;
};

}  // namespace mow
