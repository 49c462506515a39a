// Functions f(r) of a squared distance r, or of a product, as numbers: what the kernels of every device evaluate.
//
// A plain struct of one precision; the arrays belong to the caller (csrc/common/radial_numbers.h fills them).
#pragma once

namespace mow {

enum class Family {
  kRational,      // sum_s 1 / (1 + r/C_s)                               inverse multiquadric kernels
  kExponentials,  // sum_s amplitude exp(-rate r)                        Gaussian kernels, and phi_1
  kSeriesHalf,    // w^(1/2) p(2w-1), w = 1/(1 + rate r)                 phi_D
  kSeriesOne,     // w p(2w-1)                                           E k(z, v) of inverse multiquadric kernels
  kSeriesRoot,    // w^(-1/2) p(2w-1)                                    that of the energy kernel
  kRoot,          // -sqrt(r)                                            the energy kernel
  kLaplacian,     // sum_s exp(-rate sqrt(r))                            Laplacian kernels
  kPowers,        // sum_s (1 + rate r)^-a - linear r                    rational quadratic kernels
  kSeriesPowers,  // offset - linear r + sum_s w^a p(2w-1)               their E k(z, v)
  kPolynomial,    // sum_j p_j r^j                                       that of polynomial kernels
  kProducts,      // (rate x + offset)^degree, x a product of rows       polynomial kernels
};

constexpr bool of_products(Family family) { return family == Family::kProducts; }

template <class T>
struct Radial {
  Family family;

  // kRational, in t = rate r: P(t)/Q(t), of degrees scales - 1 and scales, with one division; the derivative is
  // -N(t)/Q(t)^2, of degree 2 scales - 2. Every coefficient is positive, so nothing cancels. Beyond t = bound a
  // polynomial could overflow, and the sum over 1/(1 + t reciprocals[s]) is taken as it stands.
  // kSeries*: the rate above.
  T rate;
  T bound;
  int scales;
  const T* reciprocals;
  const T* numerator;
  const T* denominator;
  const T* derivative;

  // kExponentials: after each term come squarings[s] more, each of twice the rate, which cost one product instead of
  // an exponential.
  const T* amplitudes;
  const T* rates;
  const T* rate_tails;  // what rounding took from the rates
  const int* squarings;

  // kPowers, beside the rates: a is wholes[s] + fractions[s], of which the latter are below 1. kSeriesPowers: a is
  // fractions[s], and p has for each term [numbers that follow, knee, chebyshev, its p..., its q...], rate = 1/(2 knee).
  T linear;
  T offset;
  const int* wholes;
  const T* fractions;
  int degree;

  // kSeries*: p, and q = a p(x) + (x+1) p'(x), which gives the derivative -rate w^(a+1) q(2w-1); a is 1/2, 1 or -1/2.
  // Coefficients of x^j, or of the Chebyshev polynomials T_j(x) where powers of x would cancel. kPolynomial: q is p'.
  int terms;
  bool chebyshev;
  const T* p;
  const T* q;
};

}  // namespace mow
