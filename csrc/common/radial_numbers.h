// From the parameters of a radial function to the numbers that the kernels evaluate (csrc/common/radial.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "common/radial.h"

namespace mow {

template <class T>
class RadialNumbers {
 public:
  // sum_s 1 / (1 + r/C_s).
  static RadialNumbers inverse_multiquadric(const double* constants, int64_t scales) {
    // t = r/C with C between the extremes, so that neither small nor large scales push the coefficients out of range.
    const auto [smallest, largest] = std::minmax_element(constants, constants + scales);
    const double unit = std::sqrt(*smallest) * std::sqrt(*largest);
    std::vector<double> reciprocals(scales), q{1}, p(scales), n(2 * scales - 1);
    for (int64_t s = 0; s < scales; ++s) {
      reciprocals[s] = unit / constants[s];
      q.push_back(0);
      for (int64_t j = s + 1; j > 0; --j) q[j] += q[j - 1] * reciprocals[s];
    }
    // Q = prod (1 + t c_s); P = sum_s Q / (1 + t c_s) takes each product of j factors scales - j times; N = P Q' - P' Q.
    for (int64_t j = 0; j < scales; ++j) p[j] = double(scales - j) * q[j];
    for (int64_t i = 0; i < scales; ++i) {
      for (int64_t j = 0; j <= scales; ++j) {
        if (i + j > 0 && i + j < 2 * scales) n[i + j - 1] += double(j - i) * p[i] * q[j];
      }
    }
    RadialNumbers result(Family::kRational);
    result.radial_.rate = T(1 / unit);
    result.radial_.scales = int(scales);
    result.radial_.bound = T(std::min(largest_argument(q), largest_argument(n)));
    result.point(&Radial<T>::reciprocals, reciprocals);
    result.point(&Radial<T>::numerator, p);
    result.point(&Radial<T>::denominator, q);
    result.point(&Radial<T>::derivative, n);
    return result;
  }

  // sum_s exp(-r/C_s). A constant that is half or a quarter of another costs squarings: at most two, each of which
  // doubles the relative error.
  static RadialNumbers gaussian(const double* constants, int64_t scales) {
    std::vector<double> left(constants, constants + scales), rates;
    std::sort(left.begin(), left.end(), std::greater<>());
    std::vector<int> squarings;
    while (!left.empty()) {
      double constant = left.front();
      left.erase(left.begin());
      rates.push_back(1 / constant);
      squarings.push_back(0);
      for (auto half = left.begin(); squarings.back() < 2; ++squarings.back()) {
        half = std::find(left.begin(), left.end(), constant /= 2);
        if (half == left.end()) break;
        left.erase(half);
      }
    }
    return exponentials(std::vector<double>(rates.size(), 1.0), rates, squarings);
  }

  // sum_s amplitude_s exp(-rate_s r).
  static RadialNumbers exponentials(
      const std::vector<double>& amplitudes, const std::vector<double>& rates, std::vector<int> squarings = {}) {
    RadialNumbers result(Family::kExponentials);
    squarings.resize(rates.size());
    result.squarings_ = std::move(squarings);
    result.radial_.squarings = result.squarings_.data();
    result.point(&Radial<T>::amplitudes, amplitudes);
    result.point_rates(rates);
    return result;
  }

  // -sqrt(r).
  static RadialNumbers root() { return RadialNumbers(Family::kRoot); }

  // sum_s exp(-sqrt(r) / length_s).
  static RadialNumbers laplacian(const double* lengths, int64_t scales) {
    RadialNumbers result(Family::kLaplacian);
    result.point_rates(reciprocals(lengths, scales));
    return result;
  }

  // sum_s (1 + r/(2 power_s))^-power_s - linear r.
  static RadialNumbers rational_quadratic(double linear, const double* powers, int64_t scales) {
    RadialNumbers result(Family::kPowers);
    std::vector<double> rates = reciprocals(powers, scales), fractions(scales);
    for (int64_t s = 0; s < scales; ++s) {
      rates[s] /= 2;
      result.wholes_.push_back(int(std::min(powers[s], 1e9)));  // of that, all but 1 is nothing
      fractions[s] = std::max(0.0, powers[s] - result.wholes_.back());
    }
    result.point_rates(rates);
    result.radial_.linear = T(linear);
    result.radial_.wholes = result.wholes_.data();
    result.point(&Radial<T>::fractions, fractions);
    return result;
  }

  // offset - linear r + sum_s of series in w = 1/(1 + r/(2 knee)) that begin with w^power; `numbers` is laid out as
  // Radial::p.
  static RadialNumbers series_of_powers(
      double offset, double linear, const double* powers, int64_t scales, const double* numbers, int64_t size) {
    RadialNumbers result(Family::kSeriesPowers);
    result.radial_.offset = T(offset);
    result.radial_.linear = T(linear);
    result.radial_.scales = int(scales);
    result.radial_.terms = int(size);
    result.point(&Radial<T>::fractions, {powers, powers + scales});
    result.point(&Radial<T>::p, {numbers, numbers + size});
    return result;
  }

  // sum_j coefficient_j r^j.
  static RadialNumbers polynomial(const double* coefficients, int64_t terms) {
    std::vector<double> slopes(terms);
    for (int64_t j = 1; j < terms; ++j) slopes[j - 1] = double(j) * coefficients[j];
    RadialNumbers result(Family::kPolynomial);
    result.radial_.terms = int(terms);
    result.point(&Radial<T>::p, {coefficients, coefficients + terms});
    result.point(&Radial<T>::q, slopes);
    return result;
  }

  // (gamma x + offset)^degree of a product x.
  static RadialNumbers products(int degree, double offset, double gamma) {
    RadialNumbers result(Family::kProducts);
    result.radial_.degree = degree;
    result.radial_.offset = T(offset);
    result.radial_.rate = T(gamma);
    return result;
  }

  // A series in w = 1/(1 + r/(width knee)); the table is [knee, chebyshev, p_0.., q_0..].
  static RadialNumbers series(Family family, const double* table, int64_t size, double width) {
    const int64_t terms = (size - 2) / 2;
    RadialNumbers result(family);
    result.radial_.rate = T(1 / (width * table[0]));
    result.radial_.chebyshev = table[1] != 0;
    result.radial_.terms = int(terms);
    result.point(&Radial<T>::p, {table + 2, table + 2 + terms});
    result.point(&Radial<T>::q, {table + 2 + terms, table + 2 + 2 * terms});
    return result;
  }

  RadialNumbers(RadialNumbers&&) = default;
  RadialNumbers& operator=(RadialNumbers&&) = default;

  const Radial<T>& radial() const { return radial_; }

 private:
  Radial<T> radial_{};
  std::vector<std::vector<T>> arrays_;
  std::vector<int> squarings_, wholes_;

  explicit RadialNumbers(Family family) {
    radial_.family = family;
    arrays_.reserve(4);
  }

  void point(const T* Radial<T>::* member, const std::vector<double>& numbers) {
    radial_.*member = arrays_.emplace_back(numbers.begin(), numbers.end()).data();
  }

  void point_rates(const std::vector<double>& rates) {
    radial_.scales = int(rates.size());
    point(&Radial<T>::rates, rates);
    std::vector<double> tails;
    for (const double rate : rates) tails.push_back(rate - double(T(rate)));
    point(&Radial<T>::rate_tails, tails);
  }

  static std::vector<double> reciprocals(const double* numbers, int64_t count) {
    std::vector<double> result;
    for (int64_t i = 0; i < count; ++i) result.push_back(1 / numbers[i]);
    return result;
  }

  // A t up to which a polynomial with positive coefficients stays clear of overflow: sum c_j t^j <= (sum c_j) t^degree
  // for t >= 1. Negative if there is none.
  static double largest_argument(const std::vector<double>& coefficients) {
    double at_one = 0;
    for (const double c : coefficients) at_one += c;
    const double room = std::numeric_limits<T>::max() / 16 / at_one;
    const double degree = double(coefficients.size()) - 1;
    if (!(room >= 1)) return -1;
    return degree == 0 ? std::numeric_limits<T>::max() / 16 : std::pow(room, 1 / degree);
  }
};

}  // namespace mow
