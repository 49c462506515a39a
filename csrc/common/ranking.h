// Directions, sorting projections and coupling two sorted samples by their quantiles, on the host or the device.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace mow {

template <class T>
struct KeyOf;
template <>
struct KeyOf<float> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
};
template <>
struct KeyOf<double> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
};

// Integers in the order of the numbers; a NaN goes to an end, and both zeros become +0.
template <class T>
MOW_HD typename KeyOf<T>::Unsigned encode(T x) {
  using Key = typename KeyOf<T>::Unsigned;
  constexpr int kSign = 8 * sizeof(T) - 1;
  x += T(0);
  Key bits;
  memcpy(&bits, &x, sizeof x);
  return bits ^ (Key(typename KeyOf<T>::Signed(bits) >> kSign) | Key(1) << kSign);
}

template <class T>
MOW_HD T decode(typename KeyOf<T>::Unsigned key) {
  using Key = typename KeyOf<T>::Unsigned;
  constexpr int kSign = 8 * sizeof(T) - 1;
  const Key bits = key ^ (Key(typename KeyOf<T>::Signed(~key) >> kSign) | Key(1) << kSign);
  T x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// A projection and the row it belongs to. No two entries of a sample are equal: equal projections go by row.
template <class T>
struct Entry;

template <>
struct Entry<float> {
  uint64_t bits;

  MOW_HD static Entry of(float x, uint32_t row) { return {uint64_t(encode(x)) << 32 | row}; }
  MOW_HD static Entry last() { return {~uint64_t(0)}; }
  MOW_HD float value() const { return decode<float>(order()); }
  MOW_HD uint32_t row() const { return uint32_t(bits); }
  MOW_HD uint32_t order() const { return uint32_t(bits >> 32); }
  MOW_HD friend bool operator<(const Entry& a, const Entry& b) { return a.bits < b.bits; }
};

template <>
struct alignas(16) Entry<double> {
  uint64_t key, index;

  MOW_HD static Entry of(double x, uint32_t row) { return {encode(x), row}; }
  MOW_HD static Entry last() { return {~uint64_t(0), ~uint64_t(0)}; }
  MOW_HD double value() const { return decode<double>(key); }
  MOW_HD uint32_t row() const { return uint32_t(index); }
  MOW_HD uint64_t order() const { return key; }
  MOW_HD friend bool operator<(const Entry& a, const Entry& b) {
    return a.key < b.key || (a.key == b.key && a.index < b.index);
  }
};

// How many of `count` places come before the first at which below(place) no longer holds.
template <class Below>
MOW_HD int64_t first_not(int64_t count, const Below& below) {
  int64_t low = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    if (below(low + half)) {
      low += half + 1, count -= half + 1;
    } else {
      count = half;
    }
  }
  return low;
}

// How many of the `count` ascending entries are less than `entry`.
template <class T>
MOW_HD int64_t count_below(const Entry<T>* entries, int64_t count, const Entry<T>& entry) {
  return first_not(count, [&](int64_t i) { return entries[i] < entry; });
}

// The steps of the two quantile functions on one grid: row i of n covers [i, i+1) * per_row, row j of m covers
// [j, j+1) * per_prior, both out of `whole`. Made on the host: a device takes its time to divide integers.
struct Coupling {
  int64_t per_row, per_prior, whole;

  Coupling(int64_t n, int64_t m) {
    int64_t a = n, b = m;
    while (b != 0) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    per_row = m / a, per_prior = n / a, whole = n * per_row;
  }

  // Calls each(j, width) for the prior's steps that the row of this rank covers.
  template <class Each>
  MOW_HD void for_steps(int64_t rank, const Each& each) const {
    const int64_t end = (rank + 1) * per_row;
    int64_t at = rank * per_row;
    for (int64_t j = per_prior == 1 ? at : at / per_prior; at < end; ++j) {
      const int64_t step = (j + 1) * per_prior, next = step < end ? step : end;
      each(j, double(next - at));
      at = next;
    }
  }
};

// What a draw from N(0, I) is divided by to be a direction, from the sum of its squares: that of
// torch.nn.functional.normalize.
template <class T>
MOW_HD T norm_of_draw(T squares) {
  const T norm = std::sqrt(squares), least = T(1e-12);
  return norm > least ? norm : least;
}

// |d|^p and its derivative.
struct PowerCost {
  double p;

  MOW_HD double cost(double d) const { return p == 2 ? d * d : p == 1 ? std::fabs(d) : std::pow(std::fabs(d), p); }
  MOW_HD double slope(double d) const {
    if (p == 2) return 2 * d;
    const double sign = (d > 0) - (d < 0);
    return p == 1 ? sign : p * std::pow(std::fabs(d), p - 1) * sign;
  }
};

}  // namespace mow
