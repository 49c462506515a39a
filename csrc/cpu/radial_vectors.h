// The radial functions of csrc/common/radial.h on batches of vectors: value and derivative together.
//
// A batch is several vectors at once, so that the chains of dependent multiply-adds overlap.
#pragma once

#include <limits>

#include "common/radial.h"
#include "cpu/simd.h"

namespace {

using mow::Radial;

template <class T, int B>
using Batch = Vec<T>[B];

// Horner's rule: coefficients of x^j, j < terms.
template <class T, int B>
inline void horner(const T* coefficients, int terms, const Batch<T, B>& x, Batch<T, B>& y) {
  for (int b = 0; b < B; ++b) y[b] = broadcast<T>(coefficients[terms - 1]);
  for (int j = terms - 2; j >= 0; --j) {
    const Vec<T> coefficient = broadcast<T>(coefficients[j]);
    for (int b = 0; b < B; ++b) y[b] = y[b] * x[b] + coefficient;
  }
}

// Clenshaw's recurrence: coefficients of T_j(x), j < terms, terms >= 2.
template <class T, int B>
inline void clenshaw(const T* coefficients, int terms, const Batch<T, B>& x, Batch<T, B>& y) {
  Batch<T, B> next;
  for (int b = 0; b < B; ++b) next[b] = Vec<T>{}, y[b] = broadcast<T>(coefficients[terms - 1]);
  for (int j = terms - 2; j > 0; --j) {
    const Vec<T> coefficient = broadcast<T>(coefficients[j]);
    for (int b = 0; b < B; ++b) {
      const Vec<T> before = (x[b] + x[b]) * y[b] + (coefficient - next[b]);
      next[b] = y[b], y[b] = before;
    }
  }
  for (int b = 0; b < B; ++b) y[b] = x[b] * y[b] + (coefficients[0] - next[b]);
}

// 1/j!, j = 0, 1, ...: on |x| <= log(2)/2 these Taylor sums of exp are exact to 5e-9 and 4e-18.
template <class T>
constexpr int kExpTerms = sizeof(T) == 4 ? 8 : 14;
template <class T>
struct InverseFactorials {
  T values[kExpTerms<T>];
  constexpr InverseFactorials() : values() {
    double factorial = 1;
    for (int j = 0; j < kExpTerms<T>; factorial *= ++j) values[j] = T(1 / factorial);
  }
};

// exp of less would be denormal.
template <class T>
constexpr T kLeastExponent = sizeof(T) == 4 ? T(-87.3) : T(-708.3);

// exp(x + tail) for x <= 0 and a tail of rounding errors, zero where the result would be denormal.
template <class T, int B>
inline void exponential(const Batch<T, B>& x, const Batch<T, B>& tail, Batch<T, B>& y) {
  constexpr bool single = sizeof(T) == 4;
  constexpr T lowest = kLeastExponent<T>;
  constexpr T log2_e = T(1.4426950408889634074);
  constexpr T ln2_high = single ? T(0.693359375) : T(0.693147180369123816490);  // few bits: n ln2_high is exact
  constexpr T ln2_low = single ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
  constexpr T to_integer = T(1.5) * (int64_t{1} << MaskOf<T>::kMantissaBits);  // adding it rounds to an integer
  static constexpr InverseFactorials<T> factors;
  Batch<T, B> n, rest;
  for (int b = 0; b < B; ++b) {
    const Vec<T> clamped = x[b] < lowest ? broadcast<T>(lowest) : x[b];
    n[b] = clamped * log2_e + to_integer;
    const Vec<T> rounded = n[b] - to_integer;
    rest[b] = (clamped - rounded * ln2_high) - rounded * ln2_low + tail[b];
  }
  horner<T, B>(factors.values, kExpTerms<T>, rest, y);
  for (int b = 0; b < B; ++b) {
    const Int<T> exponent = ((Int<T>)n[b] + MaskOf<T>::kExponentBias) << MaskOf<T>::kMantissaBits;
    y[b] = x[b] < lowest ? Vec<T>{} : y[b] * (Vec<T>)exponent;
  }
}

// f(r) -> value and, if kSlope, f'(r) -> slope. One struct per family so that the kernels are compiled for each.
//
// With kScales, the compiler knows how long the loops are; 0 is any number.
template <class T, int kScales>
struct Rational {
  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    const int scales = kScales > 0 ? kScales : f.scales;
    const T *p = f.numerator, *q = f.denominator;
    Batch<T, B> t, inverse;
    Vec<T> largest{};
    for (int b = 0; b < B; ++b) {
      t[b] = r[b] * f.rate;
      largest = t[b] > largest ? t[b] : largest;  // a NaN is not
      value[b] = broadcast<T>(p[scales - 1]);
      inverse[b] = q[scales] * t[b] + q[scales - 1];
    }
    for (int j = scales - 2; j >= 0; --j) {  // Horner's rule for both at once
      const Vec<T> pj = broadcast<T>(p[j]), qj = broadcast<T>(q[j]);
      for (int b = 0; b < B; ++b) value[b] = value[b] * t[b] + pj, inverse[b] = inverse[b] * t[b] + qj;
    }
    for (int b = 0; b < B; ++b) inverse[b] = reciprocal<T>(inverse[b]), value[b] *= inverse[b];
    if constexpr (kSlope) {
      horner<T, B>(f.derivative, 2 * scales - 1, t, slope);
      for (int b = 0; b < B; ++b) slope[b] = slope[b] * inverse[b] * inverse[b] * -f.rate;
    }
    if (__builtin_expect(any<T>(largest > f.bound), false)) sum_large<kSlope, B>(t, value, slope);
  }

 private:
  // Only where it is needed: what a lane has must not depend on its neighbours.
  template <bool kSlope, int B>
  __attribute__((noinline)) void sum_large(const Batch<T, B>& t, Batch<T, B>& value, Batch<T, B>& slope) const {
    for (int b = 0; b < B; ++b) {
      Vec<T> sum{}, sum_slope{};
      for (int s = 0; s < f.scales; ++s) {
        const Vec<T> term = 1 / (1 + t[b] * f.reciprocals[s]);
        sum += term;
        sum_slope -= term * term * (f.reciprocals[s] * f.rate);
      }
      value[b] = t[b] > f.bound ? sum : value[b];
      if constexpr (kSlope) slope[b] = t[b] > f.bound ? sum_slope : slope[b];
    }
  }
};

template <class T>
struct Exponentials {
  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    for (int b = 0; b < B; ++b) value[b] = slope[b] = Vec<T>{};
    for (int s = 0; s < f.scales; ++s) {
      T rate = f.rates[s];
      Batch<T, B> term, exponent, tail;
      for (int b = 0; b < B; ++b) {
        exponent[b] = r[b] * -rate;
        tail[b] = (r[b] * -rate - exponent[b]) - r[b] * f.rate_tails[s];  // one multiply-add tells what rounding took
        tail[b] = exponent[b] > kLeastExponent<T> ? tail[b] : Vec<T>{};
      }
      exponential<T, B>(exponent, tail, term);
      for (int b = 0; b < B; ++b) {
        term[b] *= f.amplitudes[s];
        value[b] += term[b];
        if constexpr (kSlope) slope[b] -= term[b] * rate;
      }
      for (int squaring = 0; squaring < f.squarings[s]; ++squaring) {
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
struct Series {
  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    constexpr T largest = std::numeric_limits<T>::max();
    Batch<T, B> w, x, power;  // power = w^a
    for (int b = 0; b < B; ++b) {
      const Vec<T> t = 1 + r[b] * f.rate;
      const Vec<T> finite = t > largest ? broadcast<T>(largest) : t;
      power[b] = kHalf ? reciprocal_root<T>(finite) : reciprocal<T>(finite);
      w[b] = kHalf ? power[b] * power[b] : power[b];
      x[b] = w[b] + w[b] - 1;
    }
    polynomial<B>(f.p, x, value);
    if constexpr (kSlope) polynomial<B>(f.q, x, slope);
    for (int b = 0; b < B; ++b) {
      value[b] *= power[b];
      if constexpr (kSlope) slope[b] *= power[b] * w[b] * -f.rate;
    }
  }

 private:
  template <int B>
  void polynomial(const T* coefficients, const Batch<T, B>& x, Batch<T, B>& y) const {
    if (f.chebyshev) {
      clenshaw<T, B>(coefficients, f.terms, x, y);
    } else {
      horner<T, B>(coefficients, f.terms, x, y);
    }
  }
};

}  // namespace
