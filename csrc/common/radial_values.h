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
constexpr int kMostNumbers = 352;  // the parameters of a kernel are at most 4 KiB
constexpr int kMostDegree = 64;    // of a polynomial's mean

template <class T>
constexpr T kLargest = std::numeric_limits<T>::max();
template <class T>
constexpr T kSmallest = std::numeric_limits<T>::min();

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

template <class T, int B>
MOW_HD void polynomial(bool chebyshev, const T* coefficients, int terms, const T (&x)[B], T (&y)[B]) {
  if (chebyshev) {
    clenshaw(coefficients, terms, x, y);
  } else {
    horner(coefficients, terms, x, y);
  }
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

// Of w^a, a = kTwice / 2.
template <class T, int kTwice>
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
      const T root = kTwice == 2 ? T(0) : reciprocal_root(finite);
      w[b] = kTwice == 2 ? 1 / finite : root * root;
      power[b] = kTwice == 2 ? w[b] : kTwice == 1 ? root : finite * root;
      x[b] = w[b] + w[b] - 1;
    }
    polynomial(chebyshev, p, terms, x, value);
    if constexpr (kSlope) polynomial(chebyshev, q, terms, x, slope);
    for (int b = 0; b < B; ++b) {
      value[b] *= power[b];
      if constexpr (kSlope) slope[b] *= power[b] * w[b] * -rate;
    }
  }
};

template <class T>
struct RadialValues<T, Family::kSeriesHalf> : SeriesValues<T, 1> {
  static constexpr Family kClosedForm = Family::kSeriesHalf;
};

template <class T>
struct RadialValues<T, Family::kSeriesOne> : SeriesValues<T, 2> {};

template <class T>
struct RadialValues<T, Family::kSeriesRoot> : SeriesValues<T, -1> {};

// sqrt(r) and 1/sqrt(r), both zero where r is or would be denormal: there rows coincide.
template <class T>
MOW_HD void roots(T r, T& root, T& inverse) {
  const T finite = r > kLargest<T> ? kLargest<T> : r;
  root = finite < kSmallest<T> ? T(0) : std::sqrt(finite);
  inverse = finite < kSmallest<T> ? T(0) : 1 / root;
}

template <class T>
struct RadialValues<T, Family::kRoot> {
  static constexpr Family kClosedForm = Family::kSeriesRoot;

  bool copy(const Radial<T>&) { return true; }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    for (int b = 0; b < B; ++b) {
      T root, inverse;
      roots(r[b], root, inverse);
      value[b] = -root;
      if constexpr (kSlope) slope[b] = inverse * T(-0.5);
    }
  }
};

template <class T>
struct RadialValues<T, Family::kLaplacian> {
  static constexpr Family kClosedForm = Family::kPolynomial;  // it has none

  int scales;
  T rates[kMostScales], rate_tails[kMostScales];

  bool copy(const Radial<T>& f) {
    if (f.scales > kMostScales) return false;
    scales = f.scales;
    for (int s = 0; s < scales; ++s) rates[s] = f.rates[s], rate_tails[s] = f.rate_tails[s];
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    for (int b = 0; b < B; ++b) {
      T root, inverse;
      roots(r[b], root, inverse);
      const T rest = std::fma(-root, root, r[b]) * inverse * T(0.5);  // what rounding took from the root
      T sum = 0, sum_slope = 0;
      for (int s = 0; s < scales; ++s) {
        const T x = root * -rates[s], power = std::exp(x);
        const T tail = std::fma(root, -rates[s], -x) - root * rate_tails[s] - rest * rates[s];
        const T term = power > 0 ? power + power * tail : power;
        sum += term;
        sum_slope += term * rates[s];
      }
      value[b] = sum;
      if constexpr (kSlope) slope[b] = sum_slope * inverse * T(-0.5);
    }
  }
};

// x^n for n >= 0.
template <class T>
MOW_HD T whole_power(T x, int n) {
  T power = 1;
  for (; n > 0; n >>= 1, x *= x) {
    if (n & 1) power *= x;
  }
  return power;
}

template <class T>
struct RadialValues<T, Family::kPowers> {
  static constexpr Family kClosedForm = Family::kSeriesPowers;

  int scales;
  T linear, rates[kMostScales], fractions[kMostScales];
  int wholes[kMostScales];

  bool copy(const Radial<T>& f) {
    if (f.scales > kMostScales) return false;
    scales = f.scales, linear = f.linear;
    for (int s = 0; s < scales; ++s) rates[s] = f.rates[s], fractions[s] = f.fractions[s], wholes[s] = f.wholes[s];
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    for (int b = 0; b < B; ++b) value[b] = linear == 0 ? T(0) : -linear * r[b], slope[b] = -linear;
    for (int s = 0; s < scales; ++s) {
      for (int b = 0; b < B; ++b) {
        const T x = 1 + r[b] * rates[s], finite = x > kLargest<T> / 4 ? kLargest<T> / 4 : x, inverse = 1 / finite;
        const T part = fractions[s] == 0          ? T(1)
                       : fractions[s] == T(0.5) ? reciprocal_root(finite)
                                                : std::exp(-fractions[s] * std::log(finite));
        const T power = part * whole_power(inverse, wholes[s]);
        value[b] += power;
        if constexpr (kSlope) slope[b] -= power * inverse * (rates[s] * (T(wholes[s]) + fractions[s]));
      }
    }
  }
};

template <class T>
struct RadialValues<T, Family::kSeriesPowers> {
  int scales;
  T linear, offset, powers[kMostScales], numbers[kMostNumbers];

  bool copy(const Radial<T>& f) {
    if (f.scales > kMostScales || f.terms > kMostNumbers) return false;
    scales = f.scales, linear = f.linear, offset = f.offset;
    for (int s = 0; s < scales; ++s) powers[s] = f.fractions[s];
    for (int j = 0; j < f.terms; ++j) numbers[j] = f.p[j];
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    for (int b = 0; b < B; ++b) value[b] = linear == 0 ? offset : offset - linear * r[b], slope[b] = -linear;
    const T* part = numbers;
    for (int s = 0; s < scales; ++s) {
      const int count = int(part[0]), terms = (count - 2) / 2;
      const T rate = 1 / (2 * part[1]);
      const bool chebyshev = part[2] != 0;
      T x[B], w[B], power[B], term[B];
      for (int b = 0; b < B; ++b) {
        const T t = 1 + r[b] * rate, finite = t > kLargest<T> ? kLargest<T> : t;
        w[b] = 1 / finite;
        x[b] = w[b] + w[b] - 1;
        power[b] = std::exp(-powers[s] * std::log(finite));
      }
      polynomial(chebyshev, part + 3, terms, x, term);
      for (int b = 0; b < B; ++b) value[b] += term[b] * power[b];
      if constexpr (kSlope) {
        polynomial(chebyshev, part + 3 + terms, terms, x, term);
        for (int b = 0; b < B; ++b) slope[b] -= term[b] * power[b] * w[b] * rate;
      }
      part += 1 + count;
    }
  }
};

template <class T>
struct RadialValues<T, Family::kPolynomial> {
  int terms;
  T p[kMostDegree], q[kMostDegree];

  bool copy(const Radial<T>& f) {
    if (f.terms > kMostDegree) return false;
    terms = f.terms;
    for (int j = 0; j < terms; ++j) p[j] = f.p[j], q[j] = f.q[j];
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&r)[B], T (&value)[B], T (&slope)[B]) const {
    horner(p, terms, r, value);
    if constexpr (kSlope) horner(q, terms, r, slope);
  }
};

template <class T>
struct RadialValues<T, Family::kProducts> {
  static constexpr Family kClosedForm = Family::kPolynomial;

  int degree;
  T rate, offset;

  bool copy(const Radial<T>& f) {
    degree = f.degree, rate = f.rate, offset = f.offset;
    return true;
  }

  template <bool kSlope, int B>
  MOW_HD void operator()(const T (&x)[B], T (&value)[B], T (&slope)[B]) const {
    for (int b = 0; b < B; ++b) {
      const T base = x[b] * rate + offset, lower = whole_power(base, degree - 1);
      value[b] = lower * base;
      if constexpr (kSlope) slope[b] = lower * (rate * T(degree));
    }
  }
};

}  // namespace mow
