// The sliced-Wasserstein distance on a few directions: what one instruction set's unit offers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/isa.h"

namespace mow::cpu {

// An integer in the order of the projections (csrc/cpu/sort.h).
template <class T>
using SignedKey = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <class T>
struct Matrix {
  const T* data;
  int64_t rows, columns;
  int64_t row_stride, column_stride;
};

template <class T>
struct Slicing {
  Matrix<T> history, current;  // the window: n = h + k rows of D numbers, in this order
  Matrix<T> prior;             // m rows, or none for N(0, I)
  const double* normal;        // for N(0, I): the means of the normal in n equal quantile bins, ascending
  Matrix<T> directions;        // [D, L]
  double p;
};

// Rows, and where the keys of their projections go: [groups][rows, lanes], a group's `stride` rows behind the one before.
template <class T>
struct Projected {
  Matrix<T> rows;
  SignedKey<T>* keys;
  int64_t stride;
};

// The keys of the projections on as many directions as a vector has lanes, a vector a row.
template <class T>
struct Group {
  int64_t first;        // direction
  bool sorted;          // the window: sorted, or as it came
  SignedKey<T>* window;   // [n, lanes]
  SignedKey<T>* prior;    // [m, lanes], sorted; null for N(0, I)
  SignedKey<T>* current;  // [k, lanes], as they came
  SignedKey<T>* ranks;    // [k, lanes], to be written
};

template <class T>
struct SlicedKernels {
  // The directions of a group.
  int64_t lanes;
  // The projections of some samples on the groups of directions from `first` on. Directions from the last on are zeros.
  void (*project)(
      const Projected<T>* samples, int64_t count, const Matrix<T>& directions, int64_t first, int64_t groups);
  // The first `columns` lanes of keys [rows, lanes], each ascending; the others are then open.
  void (*sort)(SignedKey<T>* keys, int64_t rows, int64_t columns);
  // For those directions of a group that exist, each where it is not null: costs [lanes] = W_p^p of the projections (for
  // N(0, I) without the variance inside the bins), for which the window must be sorted; and slopes, for each current row and
  // direction weight * d W_p^p / d projection, a row of them every slope_stride numbers, which takes two more windows of
  // memory where current rows have ties.
  void (*match)(const Slicing<T>&, const Group<T>&, double weight, double* costs, T* slopes, int64_t slope_stride);
  // Rows [first, first + lanes) of slopes [k, l] @ directions^T [l, D], set or added to g_current [k, D].
  void (*spread)(const Matrix<T>& slopes, const Matrix<T>& directions, int64_t first, bool add, T* g_current);

  // For projections that are kept sorted: the cost of n sorted keys against the means of the normal in as many bins; and
  // weight * d cost / d projection of one.
  double (*cost)(const SignedKey<T>* sorted, const T* means, int64_t n);
  T (*slope)(SignedKey<T> key, T mean, double weight);
};

#define MOW_DECLARE(isa)                                    \
  namespace isa {                                           \
  extern const SlicedKernels<float> float_sliced_kernels;   \
  extern const SlicedKernels<double> double_sliced_kernels; \
  }
MOW_FOR_EACH_ISA(MOW_DECLARE)
#undef MOW_DECLARE

template <class T>
const SlicedKernels<T>& sliced_kernels();
template <>
inline const SlicedKernels<float>& sliced_kernels() { return MOW_BEST_ISA(float_sliced_kernels); }
template <>
inline const SlicedKernels<double>& sliced_kernels() { return MOW_BEST_ISA(double_sliced_kernels); }

}  // namespace mow::cpu
