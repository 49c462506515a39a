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

template <class T>
struct SlicedKernels {
  // How many directions a call of `match` takes at once.
  int64_t lanes;
  // For the directions from `first` on, as many as there are of `lanes`, each where it is not null: costs [lanes] = W_p^p
  // of the projections (for N(0, I) without the variance inside the bins), and slopes, for each current row and direction
  // weight * d W_p^p / d projection, a row of them every slope_stride numbers. Takes some n + m vectors of memory meanwhile,
  // and twice as many where current rows have ties.
  void (*match)(
      const Slicing<T>&, int64_t first, double weight, double* costs, T* slopes, int64_t slope_stride);
  // Rows [first, first + lanes) of slopes [k, l] @ directions^T [l, D], set or added to g_current [k, D].
  void (*spread)(const Matrix<T>& slopes, const Matrix<T>& directions, int64_t first, bool add, T* g_current);

  // For projections that are kept sorted: the keys [rows, lanes] of the projections on the directions from `first` on; the
  // cost of n sorted keys against the means of the normal in as many bins; and weight * d cost / d projection of one.
  void (*project)(const Matrix<T>& rows, const Matrix<T>& directions, int64_t first, SignedKey<T>* keys);
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
