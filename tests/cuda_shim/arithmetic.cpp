// The arithmetic that host and device share (csrc/common), for ctypes.
#include <cstdint>
#include <vector>

#include "common/cramer_wold.h"
#include "common/mmd.h"
#include "common/radial_values.h"
#include "common/ranking.h"

namespace {

using namespace mow;

// f and f' at r [count], four at a time and the rest one by one.
template <class T, Family family>
bool evaluate(const Radial<T>& f, const T* r, int64_t count, T* value, T* slope) {
  RadialValues<T, family> values{};
  if (!values.copy(f)) return false;
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    T some[4] = {r[i], r[i + 1], r[i + 2], r[i + 3]}, v[4], s[4], alone[4], unused[4];
    values.template operator()<true>(some, v, s);
    values.template operator()<false>(some, alone, unused);
    for (int j = 0; j < 4; ++j) {
      value[i + j] = v[j], slope[i + j] = s[j];
      if (!(v[j] == alone[j])) return false;
    }
  }
  for (; i < count; ++i) {
    const T some[1] = {r[i]};
    T v[1], s[1];
    values.template operator()<true>(some, v, s);
    value[i] = v[0], slope[i] = s[0];
  }
  return true;
}

template <class T>
bool evaluate(const Radial<T>& f, const T* r, int64_t count, T* value, T* slope) {
  switch (f.family) {
    case Family::kRational:
      return evaluate<T, Family::kRational>(f, r, count, value, slope);
    case Family::kExponentials:
      return evaluate<T, Family::kExponentials>(f, r, count, value, slope);
    case Family::kSeriesHalf:
      return evaluate<T, Family::kSeriesHalf>(f, r, count, value, slope);
    case Family::kSeriesOne:
      return evaluate<T, Family::kSeriesOne>(f, r, count, value, slope);
    case Family::kSeriesRoot:
      return evaluate<T, Family::kSeriesRoot>(f, r, count, value, slope);
    case Family::kRoot:
      return evaluate<T, Family::kRoot>(f, r, count, value, slope);
    case Family::kLaplacian:
      return evaluate<T, Family::kLaplacian>(f, r, count, value, slope);
    case Family::kPowers:
      return evaluate<T, Family::kPowers>(f, r, count, value, slope);
    case Family::kSeriesPowers:
      return evaluate<T, Family::kSeriesPowers>(f, r, count, value, slope);
    case Family::kPolynomial:
      return evaluate<T, Family::kPolynomial>(f, r, count, value, slope);
    case Family::kProducts:
      return evaluate<T, Family::kProducts>(f, r, count, value, slope);
  }
  return false;
}

template <class T>
bool of_mmd(const double* table, int64_t size, const void* r, int64_t count, void* value, void* slope) {
  const auto f = MmdTable(table, size).function<T>();
  return evaluate(f.radial(), static_cast<const T*>(r), count, static_cast<T*>(value), static_cast<T*>(slope));
}

template <class T>
bool of_phi(const double* table, int64_t size, double width, const void* r, int64_t count, void* value, void* slope) {
  const auto f = CramerWoldTable{table, size}.phi<T>(width);
  return evaluate(f.radial(), static_cast<const T*>(r), count, static_cast<T*>(value), static_cast<T*>(slope));
}

}  // namespace

extern "C" {

bool arithmetic_mmd(
    bool single, const double* table, int64_t size, const void* r, int64_t count, void* value, void* slope) {
  return (single ? of_mmd<float> : of_mmd<double>)(table, size, r, count, value, slope);
}

bool arithmetic_normal_mean(
    const double* table, int64_t size, const double* r, int64_t count, double* value, double* slope) {
  const auto f = MmdTable(table, size).normal_mean();
  return evaluate(f.radial(), r, count, value, slope);
}

bool arithmetic_phi(
    bool single, const double* table, int64_t size, double width, const void* r, int64_t count, void* value, void* slope) {
  return (single ? of_phi<float> : of_phi<double>)(table, size, width, r, count, value, slope);
}

// Whether entry a comes before entry b, and what is left of their values.
bool arithmetic_before(bool single, double a, uint32_t row_a, double b, uint32_t row_b, double* values) {
  if (single) {
    const auto x = Entry<float>::of(float(a), row_a), y = Entry<float>::of(float(b), row_b);
    values[0] = x.value(), values[1] = y.value();
    return x < y && x < Entry<float>::last() && x.row() == row_a;
  }
  const auto x = Entry<double>::of(a, row_a), y = Entry<double>::of(b, row_b);
  values[0] = x.value(), values[1] = y.value();
  return x < y && x < Entry<double>::last() && x.row() == row_a;
}

int64_t arithmetic_count_below(const float* ascending, int64_t count, float x, uint32_t row) {
  std::vector<Entry<float>> entries;
  for (int64_t i = 0; i < count; ++i) entries.push_back(Entry<float>::of(ascending[i], uint32_t(i)));
  return count_below(entries.data(), count, Entry<float>::of(x, row));
}

// The steps of all ranks: the prior's rank and the width [n + m - 1] at most; returns how many.
int64_t arithmetic_steps(int64_t n, int64_t m, int64_t* rows, int64_t* priors, double* widths) {
  const Coupling coupling(n, m);
  int64_t count = 0;
  for (int64_t rank = 0; rank < n; ++rank) {
    coupling.for_steps(rank, [&](int64_t j, double width) {
      rows[count] = rank, priors[count] = j;
      widths[count++] = width / double(coupling.whole);
    });
  }
  return count;
}

void arithmetic_cost(double p, double d, double* cost, double* slope) {
  *cost = PowerCost{p}.cost(d);
  *slope = PowerCost{p}.slope(d);
}

}
