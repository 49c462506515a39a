// The functions of csrc/common/radial.h on batches of vectors: value and derivative together.
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

// log(2) in two parts, of which the first has few bits: its product with an exponent is exact.
template <class T>
constexpr T kLn2High = sizeof(T) == 4 ? T(0.693359375) : T(0.693147180369123816490);
template <class T>
constexpr T kLn2Low = sizeof(T) == 4 ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);

// exp of less would be denormal.
template <class T>
constexpr T kLeastExponent = sizeof(T) == 4 ? T(-87.3) : T(-708.3);

// exp(x + tail) for x <= 0 and a tail of rounding errors, zero where the result would be denormal.
template <class T, int B>
inline void exponential(const Batch<T, B>& x, const Batch<T, B>& tail, Batch<T, B>& y) {
  constexpr T lowest = kLeastExponent<T>;
  constexpr T log2_e = T(1.4426950408889634074);
  constexpr T to_integer = T(1.5) * (int64_t{1} << MaskOf<T>::kMantissaBits);  // adding it rounds to an integer
  static constexpr InverseFactorials<T> factors;
  Batch<T, B> n, rest;
  for (int b = 0; b < B; ++b) {
    const Vec<T> clamped = x[b] < lowest ? broadcast<T>(lowest) : x[b];
    n[b] = clamped * log2_e + to_integer;
    const Vec<T> rounded = n[b] - to_integer;
    rest[b] = (clamped - rounded * kLn2High<T>) - rounded * kLn2Low<T> + tail[b];
  }
  horner<T, B>(factors.values, kExpTerms<T>, rest, y);
  for (int b = 0; b < B; ++b) {
    const Int<T> exponent = ((Int<T>)n[b] + MaskOf<T>::kExponentBias) << MaskOf<T>::kMantissaBits;
    y[b] = x[b] < lowest ? Vec<T>{} : y[b] * (Vec<T>)exponent;
  }
}

// sqrt(r), 1/sqrt(r) and what rounding took from the first; all are zero where r is or would be denormal: there rows
// coincide.
template <class T, int B>
inline void roots(const Batch<T, B>& r, Batch<T, B>& root, Batch<T, B>& inverse, Batch<T, B>& rest) {
  constexpr T smallest = std::numeric_limits<T>::min(), largest = std::numeric_limits<T>::max();
  for (int b = 0; b < B; ++b) {
    const Vec<T> low = r[b] < smallest ? broadcast<T>(smallest) : r[b];  // a NaN stays
    const Vec<T> x = low > largest ? broadcast<T>(largest) : low;
    const Int<T> apart = ~(r[b] < smallest);
    const Vec<T> near = reciprocal_root<T>(x), estimate = x * near;
    inverse[b] = apart ? near : Vec<T>{};
    root[b] = apart ? estimate : Vec<T>{};
    rest[b] = (x - estimate * estimate) * (T(0.5) * inverse[b]);
  }
}

// 1, 1/3, 1/5, ...: for x = m 2^n, m from sqrt(1/2) to sqrt(2), log(m) = 2 s sum_j s^(2j) / (2j+1), s = (m-1)/(m+1), is
// exact to 1e-9 and 3e-18 of it.
template <class T>
constexpr int kLogTerms = sizeof(T) == 4 ? 6 : 12;
template <class T>
struct OddReciprocals {
  T values[kLogTerms<T>];
  constexpr OddReciprocals() : values() {
    for (int j = 0; j < kLogTerms<T>; ++j) values[j] = T(1) / T(2 * j + 1);
  }
};

// log(x) for x from 1 to the largest finite number.
template <class T, int B>
inline void logarithm(const Batch<T, B>& x, Batch<T, B>& y) {
  constexpr bool single = sizeof(T) == 4;
  using Lane = typename MaskOf<T>::Lane;
  constexpr Lane root_half = single ? Lane(0x3f3504f3) : Lane(0x3fe6a09e667f3bcdll);  // the bits of sqrt(1/2)
  static constexpr OddReciprocals<T> factors;
  Batch<T, B> n, s, square;
  for (int b = 0; b < B; ++b) {
    const Int<T> exponent = ((Int<T>)x[b] - root_half) >> MaskOf<T>::kMantissaBits;
    const Vec<T> m = (Vec<T>)((Int<T>)x[b] - (exponent << MaskOf<T>::kMantissaBits));
    n[b] = __builtin_convertvector(exponent, Vec<T>);
    s[b] = (m - 1) * reciprocal<T>(m + 1);
    square[b] = s[b] * s[b];
  }
  horner<T, B>(factors.values, kLogTerms<T>, square, y);
  for (int b = 0; b < B; ++b) {
    y[b] = n[b] * kLn2High<T> + (2 * s[b] * y[b] + n[b] * kLn2Low<T>);
    y[b] = x[b] == x[b] ? y[b] : x[b];
  }
}

// x^n for n >= 0.
template <class T, int B>
inline void whole_power(const Batch<T, B>& x, int n, Batch<T, B>& y) {
  Batch<T, B> square;
  for (int b = 0; b < B; ++b) square[b] = x[b], y[b] = n & 1 ? x[b] : broadcast<T>(1);
  while (n >>= 1) {
    for (int b = 0; b < B; ++b) square[b] *= square[b];
    if (!(n & 1)) continue;
    for (int b = 0; b < B; ++b) y[b] *= square[b];
  }
}

template <class T, int B>
inline void polynomial(bool chebyshev, const T* coefficients, int terms, const Batch<T, B>& x, Batch<T, B>& y) {
  if (chebyshev) {
    clenshaw<T, B>(coefficients, terms, x, y);
  } else {
    horner<T, B>(coefficients, terms, x, y);
  }
}

// f(r) -> value and, if kSlope, f'(r) -> slope. One struct per family so that the kernels are compiled for each;
// kOfProducts where r is a product of rows.
//
// With kScales, the compiler knows how long the loops are; 0 is any number.
template <class T, int kScales>
struct Rational {
  static constexpr bool kOfProducts = false;

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
  static constexpr bool kOfProducts = false;

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

// Of w^a, a = kTwice / 2.
template <class T, int kTwice>
struct Series {
  static constexpr bool kOfProducts = false;

  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    constexpr T largest = std::numeric_limits<T>::max();
    Batch<T, B> w, x, power;  // power = w^a
    for (int b = 0; b < B; ++b) {
      const Vec<T> t = 1 + r[b] * f.rate;
      const Vec<T> finite = t > largest ? broadcast<T>(largest) : t;
      power[b] = kTwice == 2 ? reciprocal<T>(finite) : reciprocal_root<T>(finite);
      w[b] = kTwice == 2 ? power[b] : power[b] * power[b];
      if constexpr (kTwice < 0) power[b] *= finite;
      x[b] = w[b] + w[b] - 1;
    }
    polynomial<T, B>(f.chebyshev, f.p, f.terms, x, value);
    if constexpr (kSlope) polynomial<T, B>(f.chebyshev, f.q, f.terms, x, slope);
    for (int b = 0; b < B; ++b) {
      value[b] *= power[b];
      if constexpr (kSlope) slope[b] *= power[b] * w[b] * -f.rate;
    }
  }
};

template <class T>
struct Root {
  static constexpr bool kOfProducts = false;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    Batch<T, B> root, inverse, rest;
    roots<T, B>(r, root, inverse, rest);
    for (int b = 0; b < B; ++b) {
      value[b] = -root[b] - rest[b];
      if constexpr (kSlope) slope[b] = inverse[b] * T(-0.5);
    }
  }
};

template <class T>
struct Laplacian {
  static constexpr bool kOfProducts = false;

  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    Batch<T, B> root, inverse, rest;
    roots<T, B>(r, root, inverse, rest);
    for (int b = 0; b < B; ++b) value[b] = slope[b] = Vec<T>{};
    for (int s = 0; s < f.scales; ++s) {
      const T rate = f.rates[s];
      Batch<T, B> term, exponent, tail;
      for (int b = 0; b < B; ++b) {
        exponent[b] = root[b] * -rate;
        tail[b] = (root[b] * -rate - exponent[b]) - root[b] * f.rate_tails[s] - rest[b] * rate;
        tail[b] = exponent[b] > kLeastExponent<T> ? tail[b] : Vec<T>{};
      }
      exponential<T, B>(exponent, tail, term);
      for (int b = 0; b < B; ++b) {
        value[b] += term[b];
        if constexpr (kSlope) slope[b] += term[b] * rate;
      }
    }
    for (int b = 0; b < B; ++b) {
      if constexpr (kSlope) slope[b] *= inverse[b] * T(-0.5);
    }
  }
};

// x^power for finite x > 0.
template <class T, int B>
void real_power(const Batch<T, B>& x, T power, Batch<T, B>& result) {
  Batch<T, B> exponent, none = {};
  logarithm<T, B>(x, exponent);
  for (int b = 0; b < B; ++b) exponent[b] *= power;
  exponential<T, B>(exponent, none, result);
}

// x = 1 + rate r, finite also of an infinite r, and 1 / x.
template <class T, int B>
void above_one(const Batch<T, B>& r, T rate, Batch<T, B>& x, Batch<T, B>& inverse) {
  constexpr T largest = std::numeric_limits<T>::max() / 4;
  for (int b = 0; b < B; ++b) {
    const Vec<T> sum = 1 + r[b] * rate;
    x[b] = sum > largest ? broadcast<T>(largest) : sum;
    inverse[b] = reciprocal<T>(x[b]);
  }
}

template <class T>
struct Powers {
  static constexpr bool kOfProducts = false;

  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    for (int b = 0; b < B; ++b) {
      value[b] = f.linear == 0 ? Vec<T>{} : r[b] * -f.linear;  // of an infinite r, too
      slope[b] = broadcast<T>(-f.linear);
    }
    for (int s = 0; s < f.scales; ++s) {
      const T rate = f.rates[s], fraction = f.fractions[s];
      Batch<T, B> x, inverse, power;
      above_one<T, B>(r, rate, x, inverse);
      whole_power<T, B>(inverse, f.wholes[s], power);
      if (fraction == T(0.5)) {
        for (int b = 0; b < B; ++b) power[b] *= reciprocal_root<T>(x[b]);
      } else if (fraction > 0) {
        Batch<T, B> part;
        real_power<T, B>(x, -fraction, part);
        for (int b = 0; b < B; ++b) power[b] *= part[b];
      }
      for (int b = 0; b < B; ++b) {
        value[b] += power[b];
        if constexpr (kSlope) slope[b] -= power[b] * inverse[b] * (rate * (T(f.wholes[s]) + fraction));
      }
    }
  }
};

template <class T>
struct SeriesOfPowers {
  static constexpr bool kOfProducts = false;

  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    for (int b = 0; b < B; ++b) {
      value[b] = f.linear == 0 ? broadcast<T>(f.offset) : f.offset - r[b] * f.linear;
      slope[b] = broadcast<T>(-f.linear);
    }
    const T* part = f.p;
    for (int s = 0; s < f.scales; ++s) {
      const int count = int(part[0]), terms = (count - 2) / 2;
      const T rate = 1 / (2 * part[1]);
      const bool chebyshev = part[2] != 0;
      Batch<T, B> finite, w, x, power, term;
      above_one<T, B>(r, rate, finite, w);
      for (int b = 0; b < B; ++b) x[b] = w[b] + w[b] - 1;
      real_power<T, B>(finite, -f.fractions[s], power);
      polynomial<T, B>(chebyshev, part + 3, terms, x, term);
      for (int b = 0; b < B; ++b) value[b] += term[b] * power[b];
      if constexpr (kSlope) {
        polynomial<T, B>(chebyshev, part + 3 + terms, terms, x, term);
        for (int b = 0; b < B; ++b) slope[b] -= term[b] * power[b] * w[b] * rate;
      }
      part += 1 + count;
    }
  }
};

template <class T>
struct Polynomial {
  static constexpr bool kOfProducts = false;

  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& r, Batch<T, B>& value, Batch<T, B>& slope) const {
    horner<T, B>(f.p, f.terms, r, value);
    if constexpr (kSlope) horner<T, B>(f.q, f.terms, r, slope);
  }
};

template <class T>
struct PowerOfProduct {
  static constexpr bool kOfProducts = true;

  const Radial<T>& f;

  template <bool kSlope, int B>
  void operator()(const Batch<T, B>& x, Batch<T, B>& value, Batch<T, B>& slope) const {
    Batch<T, B> base, lower;
    for (int b = 0; b < B; ++b) base[b] = x[b] * f.rate + f.offset;
    whole_power<T, B>(base, f.degree - 1, lower);
    for (int b = 0; b < B; ++b) {
      value[b] = lower[b] * base[b];
      if constexpr (kSlope) slope[b] = lower[b] * (f.rate * T(f.degree));
    }
  }
};

}  // namespace
