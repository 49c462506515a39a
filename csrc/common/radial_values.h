// The radial functions of csrc/common/radial.h, evaluated a number at a time on the host or the device.
//
// A batch is several numbers at once: a coefficient that is read serves them all, and their chains of dependent
// multiply-adds overlap. The structs that follow hold the arrays themselves, so that a kernel takes them by value as a
// parameter: no copy to the device, and nothing that a CUDA graph would have to keep alive.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/host_device.h"
#include "common/radial.h"

namespace mow {

constexpr int kMostScales = 24;
constexpr int kMostTerms = 112;  // phi_2 in double precision takes 108

template <class T>
constexpr T kLargest = std::numeric_limits<T>::max();

// Horner's rule: coefficients of x^j, j < terms.
template <class T, int B>
MOW_HD void horner(const T* coefficients, int terms, const T (&x)[B], T (&y)[B]) {
  for (int b = 0; b < B; ++b) y[b] = coefficients[terms - 1];
  for (int j = terms - 2; j >= 0; --j) {
    const T coefficient = coefficients[j];
    for (int b = 0; b < B; ++b) y[b] = y[b] * x[b] + coefficient;
  }
}

// Clenshaw's recurrence: coefficients of T_j(x), j < terms, terms >= 2.
template <class T, int B>
MOW_HD void clenshaw(const T* coefficients, int terms, const T (&x)[B], T (&y)[B]) {
  T next[B];
  for (int b = 0; b < B; ++b) next[b] = 0, y[b] = coefficients[terms - 1];
  for (int j = terms - 2; j > 0; --j) {
    const T coefficient = coefficients[j];
    for (int b = 0; b < B; ++b) {
      const T before = (x[b] + x[b]) * y[b] + (coefficient - next[b]);
      next[b] = y[b], y[b] = before;
    }
  }
  for (int b = 0; b < B; ++b) y[b] = x[b] * y[b] + (coefficients[0] - next[b]);
}

MOW_HD float reciprocal_root(float x) {
#if defined(__CUDA_ARCH__)
  return rsqrtf(x);
#else
  return 1 / std::sqrt(x);
#endif
}

MOW_HD double reciprocal_root(double x) {
#if defined(__CUDA_ARCH__)
  return rsqrt(x);
#else
  return 1 / std::sqrt(x);
#endif
}

// Each family: whether `copy` could take the numbers, and f(r) -> value and, if kSlope, f'(r) -> slope.
template <class T, Family family>
struct RadialValues;

template <class T>
struct RadialValues<T, Family::kRational> {
  // The closed form that goes with inverse multiquadric kernels.
  static constexpr Family kClosedForm = Family::kSeriesOne;

  T rate, bound;
  int scales;
  T reciprocals[kMostScales], numerator[kMostScales], denominator[kMostScales + 1], derivative[2 * kMostScales - 1];

  bool copy(const Radial<T>& f) {
    if (f.scales > kMostScales) return false;
    rate = f.rate, bound = f.bound, scales = f.scales;
    for (int s = 0; s < scales; ++s) reciprocals[s] = f.reciprocals[s], numerator[s] = f.numerator[s];
    for (int j = 0; j <= scales; ++j) denominator[j] = f.denominator[j];
    for (int j = 0; j < 2 * scales - 1; ++j) derivative[j] = f.derivative[j];
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    T t[B], inverse[B];
    bool large = false;
    for (int b = 0; b < B; ++b) t[b] = r[b] * rate, large |= t[b] > bound;
    if (large) {
      for (int b = 0; b < B; ++b) value[b] = slope[b] = 0;
      for (int s = 0; s < scales; ++s) {
        for (int b = 0; b < B; ++b) {
          const T term = 1 / (1 + t[b] * reciprocals[s]);
          value[b] += term;
          slope[b] -= term * term * (reciprocals[s] * rate);
        }
      }
      return;
    }
    horner(denominator, scales + 1, t, inverse);
    horner(numerator, scales, t, value);
    for (int b = 0; b < B; ++b) inverse[b] = 1 / inverse[b], value[b] *= inverse[b];
    if constexpr (kSlope) {
      horner(derivative, 2 * scales - 1, t, slope);
      for (int b = 0; b < B; ++b) slope[b] = slope[b] * inverse[b] * inverse[b] * -rate;
    }
  }
};

template <class T>
struct RadialValues<T, Family::kExponentials> {
  static constexpr Family kClosedForm = Family::kExponentials;

  int scales;
  T amplitudes[kMostScales], rates[kMostScales], rate_tails[kMostScales];
  int squarings[kMostScales];

  bool copy(const Radial<T>& f) {
    if (f.scales > kMostScales) return false;
    scales = f.scales;
    for (int s = 0; s < scales; ++s) {
      amplitudes[s] = f.amplitudes[s], rates[s] = f.rates[s];
      rate_tails[s] = f.rate_tails[s], squarings[s] = f.squarings[s];
    }
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    for (int b = 0; b < B; ++b) value[b] = slope[b] = 0;
    for (int s = 0; s < scales; ++s) {
      T rate = rates[s];
      T term[B];
      for (int b = 0; b < B; ++b) {
        const T x = r[b] * -rate, power = std::exp(x);
        const T tail = std::fma(r[b], -rate, -x) - r[b] * rate_tails[s];  // what rounding took from the exponent
        term[b] = (power > 0 ? power + power * tail : power) * amplitudes[s];
        value[b] += term[b];
        if constexpr (kSlope) slope[b] -= term[b] * rate;
      }
      for (int squaring = 0; squaring < squarings[s]; ++squaring) {
        rate *= 2;
        for (int b = 0; b < B; ++b) {
          term[b] *= term[b];
          value[b] += term[b];
          if constexpr (kSlope) slope[b] -= term[b] * rate;
        }
      }
    }
  }
};

template <class T, bool kHalf>
struct SeriesValues {
  T rate;
  int terms;
  bool chebyshev;
  T p[kMostTerms], q[kMostTerms];

  bool copy(const Radial<T>& f) {
    if (f.terms > kMostTerms) return false;
    rate = f.rate, terms = f.terms, chebyshev = f.chebyshev;
    for (int j = 0; j < terms; ++j) p[j] = f.p[j], q[j] = f.q[j];
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    T w[B], x[B], power[B];  // power = w^a
    for (int b = 0; b < B; ++b) {
      const T t = 1 + r[b] * rate;
      const T finite = t > kLargest<T> ? kLargest<T> : t;
      power[b] = kHalf ? reciprocal_root(finite) : 1 / finite;
      w[b] = kHalf ? power[b] * power[b] : power[b];
      x[b] = w[b] + w[b] - 1;
    }
    polynomial(p, x, value);
    if constexpr (kSlope) polynomial(q, x, slope);
    for (int b = 0; b < B; ++b) {
      value[b] *= power[b];
      if constexpr (kSlope) slope[b] *= power[b] * w[b] * -rate;
    }
  }

 private:
  template <int B>
  MOW_HD void polynomial(const T* coefficients, const T (&x)[B], T (&y)[B]) const {
    if (chebyshev) {
      clenshaw(coefficients, terms, x, y);
    } else {
      horner(coefficients, terms, x, y);
    }
  }
};

template <class T>
struct RadialValues<T, Family::kSeriesHalf> : SeriesValues<T, true> {
  static constexpr Family kClosedForm = Family::kSeriesHalf;
};

template <class T>
struct RadialValues<T, Family::kSeriesOne> : SeriesValues<T, false> {};

}  // namespace mow
