// Register tiles of kRows x kLanes pairs: squared distances or products, then the function of them, then the gradient of
// the rows, while all of it is in registers or in the first cache.
//
// The squared distances of wide rows come as |x|^2 + |y|^2 - 2xy, which takes half the instructions of sums of squared
// differences but cancels for rows that are close to each other and far from the origin. A tile with such a pair is
// computed again from differences, which are exact for coinciding rows of any magnitude; where that happens often,
// differences are all that is used. Compiled once per instruction set (csrc/cpu/isa.h).

#include "cpu/pairwise_kernels.h"

#include "cpu/radial_vectors.h"

namespace mow::cpu::MOW_ISA {
namespace {

// Rows of a register tile. Eight sums hide the latency of a multiply-add; each difference is taken against a number in
// memory, which saves the register reads that would slow the multiply-adds down.
template <class T>
constexpr int kRows = kLanes<T> > 8 ? kLanes<T> : 8;

#if defined(__AVX512F__)
constexpr int kBatch = 8, kTilesAtOnce = 3;
#else
constexpr int kBatch = 4, kTilesAtOnce = 2;
#endif

constexpr int kStripTiles = 30;  // whose derivatives are kept at once for the gradient; a multiple of kTilesAtOnce
template <class T>
constexpr int kStrip = kStripTiles * kLanes<T>;

// Coordinates summed in one run; the runs are added up, which bounds the rounding error for wide rows.
constexpr int64_t kRun = 64;

template <class T>
inline int64_t tiles(int64_t rows) {
  return (rows + kLanes<T> - 1) / kLanes<T>;
}

// R rows of a panel from `row` on, which begins a tile unless R is 1: coordinate d of row i is at(i, d). Beyond the last
// tile stand its first rows again.
template <class T, int R>
struct PanelRows {
  static constexpr int L = kLanes<T>, kTiles = (R + L - 1) / L;
  const T* tile[kTiles];

  PanelRows(const Panel<T>& panel, int64_t row, int64_t dim) {
    for (int t = 0; t < kTiles; ++t) {
      const int64_t first = t == 0 || row + t * L < panel.rows ? row + t * L : row;
      tile[t] = panel.data + first / L * L * dim + first % L;
    }
  }

  T at(int i, int64_t d) const { return tile[i / L][d * L + i % L]; }
};

// For R rows and C tiles of columns the sums over all coordinates of `add(sum, row's, columns')`. Of several tiles half the
// rows at a time: a row's number, once it is in a register, serves every tile, and fewer instructions wait for memory.
template <class T, int R, int C, class Add>
inline void sum_coordinates(
    const PanelRows<T, R>& rows, const T* columns, int64_t dim, Batch<T, R>* sums, const Add& add) {
  constexpr int H = C == 1 || R == 1 ? R : R / 2;
  for (int first = 0; first < R; first += H) {
    for (int64_t start = 0; start < dim; start += kRun) {
      const int64_t end = start + kRun < dim ? start + kRun : dim;
      Batch<T, H> run[C] = {};
      for (int64_t d = start; d < end; ++d) {
        Vec<T> x[C];
        for (int c = 0; c < C; ++c) x[c] = load(columns + (c * dim + d) * kLanes<T>);
        for (int i = 0; i < H; ++i) {
          const auto a = rows.at(first + i, d);
          for (int c = 0; c < C; ++c) add(run[c][i], a, x[c]);
        }
      }
      for (int c = 0; c < C; ++c) {
        for (int i = 0; i < H; ++i) sums[c][first + i] = start == 0 ? run[c][i] : sums[c][first + i] + run[c][i];
      }
    }
  }
}

template <class T, int R>
inline void distances_from_differences(const PanelRows<T, R>& rows, const T* columns, int64_t dim, Batch<T, R>& r) {
  sum_coordinates<T, R, 1>(rows, columns, dim, &r, [](Vec<T>& sum, T a, const Vec<T>& b) {
    const Vec<T> difference = b - a;
    sum += difference * difference;
  });
}

template <class T, int R, int C>
inline void multiply(const PanelRows<T, R>& rows, const T* columns, int count, int64_t dim, Batch<T, R>* products) {
  if constexpr (C > 1) {
    if (count < C) return multiply<T, R, C - 1>(rows, columns, count, dim, products);
  }
  sum_coordinates<T, R, C>(rows, columns, dim, products, [](Vec<T>& sum, T a, const Vec<T>& b) { sum += a * b; });
}

// Which pairs of a tile count: columns from `above` on and below `below + rise * i` in row i < rows, except column
// `own + i`.
struct Cut {
  bool needed;
  int rows;
  int64_t above, below;
  int rise;
  int64_t own;

  template <class T>
  Int<T> counts(int i) const {
    using Lane = typename MaskOf<T>::Lane;
    const Lane end = i < rows ? Lane(below + rise * i) : 0;
    return (lane_numbers<T>() >= Lane(above)) & (lane_numbers<T>() < end) & (lane_numbers<T>() != Lane(own + i));
  }
};

// Of R rows from `row` on, of which `live` count, with the tile of columns from `start` on.
template <class T, int R>
inline Cut cut_of(const Visit<T>& v, int64_t row, int live, int64_t start) {
  const int64_t left = v.last_column - start, skipped = v.first_column - start;
  Cut cut{live < R || left < kLanes<T> || skipped > 0, live, skipped, left, 0, -kRows<T>};
  if (v.pairs == Pairs::kBelow || v.pairs == Pairs::kUpTo) {
    cut.below = row - start + (v.pairs == Pairs::kUpTo), cut.rise = 1;
    cut.needed |= cut.below < kLanes<T>;
  } else if (v.pairs == Pairs::kOthers) {
    cut.own = row - start;
    cut.needed |= cut.own > -R && cut.own < kLanes<T>;
  }
  return cut;
}

// Narrower rows are often close, and cost little.
constexpr int64_t kProductWidth = 32;

// The share of |x|^2 + |y|^2 below which a squared distance counts as cancelled: two bits are lost.
constexpr double kCancelled = 0.25;

// How often that happened to one visit; products are given up beyond one tile in eight.
struct Products {
  bool wanted, for_ever;
  int64_t tiles = 0, cancelled = 0;

  bool worthwhile() const { return wanted && (for_ever || 8 * cancelled <= tiles + 8); }
};

// |row_i - column_j|^2 from the products row_i column_j, which it overwrites.
template <class T, int R>
inline void distances_from_products(
    const PanelRows<T, R>& rows, const T* row_norms, const T* columns, const T* column_norms, int64_t dim, const Cut& cut,
    Products& products, Batch<T, R>& r) {
  const Vec<T> norms = load(column_norms);
  const auto cancels = [](const Vec<T>& r, const Vec<T>& sum) { return ~(r >= T(kCancelled) * sum); };  // a NaN does
  Int<T> cancelled{};
  for (int i = 0; i < R; ++i) {
    const Vec<T> sum = norms + row_norms[i];
    r[i] = sum - 2 * r[i];
    cancelled |= cut.needed ? cancels(r[i], sum) & cut.counts<T>(i) : cancels(r[i], sum);
  }
  ++products.tiles;
  if (__builtin_expect(!any<T>(cancelled), true)) return;
  ++products.cancelled;
  Batch<T, R> exact = {};
  distances_from_differences<T, R>(rows, columns, dim, exact);
  for (int i = 0; i < R; ++i) r[i] = cancels(r[i], norms + row_norms[i]) ? exact[i] : r[i];
}

// The sum of some terms, by halves: the chain of additions is short.
template <class T, int count>
inline Vec<T> sum_terms(const Vec<T>* terms) {
  if constexpr (count == 1) {
    return terms[0];
  } else {
    return sum_terms<T, count / 2>(terms) + sum_terms<T, count - count / 2>(terms + count / 2);
  }
}

// One tile: adds f to the total, and to the sums of the columns where these are not null; and for a gradient stores f' at
// slopes[i * kStrip + column].
template <class T, class F, int R, bool kSlope>
inline void visit_tile(
    const F& f, const Batch<T, R>& r, const Cut& cut, Doubles<T>& total, double* column_sums, T* slopes) {
  constexpr int B = R < kBatch ? R : kBatch;
  Batch<T, R / B> sums;
  for (int start = 0; start < R; start += B) {
    Batch<T, B> some, value, slope;
    for (int b = 0; b < B; ++b) some[b] = r[start + b];
    f.template operator()<kSlope, B>(some, value, slope);
    for (int b = 0; b < B; ++b) {
      const int i = start + b;
      if (cut.needed) {
        const Int<T> counts = cut.counts<T>(i);
        value[b] = counts ? value[b] : Vec<T>{};
        if constexpr (kSlope) slope[b] = counts ? slope[b] : Vec<T>{};
      }
      if constexpr (kSlope) store(slopes + i * kStrip<T>, slope[b]);
    }
    if (column_sums != nullptr) {
      for (int part = 0; part < Doubles<T>::kParts; ++part) {
        Vec<double> sum = load(column_sums + part * kLanes<double>);
        for (int b = 0; b < B; ++b) sum += widen<T>(value[b]).parts[part];
        store(column_sums + part * kLanes<double>, sum);
      }
    }
    sums[start / B] = sum_terms<T, B>(value);
  }
  const Doubles<T> sum = widen<T>(sum_terms<T, R / B>(sums));
  for (int part = 0; part < Doubles<T>::kParts; ++part) total.parts[part] += sum.parts[part];
}

// gradient[i] += factor * sum_j slopes[i][j] (row_i - column_j) over the first `count` tiles of a strip, or of column_j
// where the slopes are those of products.
template <class T, int R, bool kOfProducts>
inline void add_gradient(
    const PanelRows<T, R>& rows, const T* columns, int64_t count, int64_t dim, const T* slopes, int live, double factor,
    double* gradient) {
  for (int64_t d = 0; d < dim; ++d) {
    Batch<T, R> sum = {};
    for (int64_t tile = 0; tile < count; ++tile) {
      const Vec<T> x = load(columns + (tile * dim + d) * kLanes<T>);
      for (int i = 0; i < R; ++i) {
        const Vec<T> slope = load(slopes + i * kStrip<T> + tile * kLanes<T>);
        sum[i] += slope * (kOfProducts ? x : rows.at(i, d) - x);
      }
    }
    if constexpr (R == 1) {
      gradient[d] += factor * sum_lanes<T>(sum[0]);
    } else {
      for (int group = 0; group < R; group += kLanes<T>) {
        const Vec<T> sums = sum_each<T>(sum + group);
        for (int i = group; i < live && i < group + kLanes<T>; ++i) gradient[i * dim + d] += factor * sums[i - group];
      }
    }
  }
}

template <class T, class F, int R>
double visit_rows(
    const Visit<T>& v, const F& f, int64_t row, int live, int64_t first_tile, int64_t last_tile, Products& products) {
  const PanelRows<T, R> rows(v.rows, row, v.dim);
  if (v.pairs == Pairs::kBelow || v.pairs == Pairs::kUpTo) {
    const int64_t end = tiles<T>(row + live - (v.pairs == Pairs::kBelow));
    last_tile = end < last_tile ? end : last_tile;
  }
  Doubles<T> total{};
  int64_t visited = 0;
  Batch<T, R> r[kTilesAtOnce];
  for (int64_t tile = first_tile; tile < last_tile; tile += kTilesAtOnce) {
    const int count = last_tile - tile < kTilesAtOnce ? int(last_tile - tile) : kTilesAtOnce;
    const T* columns = v.columns.data + tile * kLanes<T> * v.dim;
    const bool multiplied = F::kOfProducts || products.worthwhile();
    if (multiplied) multiply<T, R, kTilesAtOnce>(rows, columns, count, v.dim, r);
    for (int c = 0; c < count; ++c, columns += kLanes<T> * v.dim) {
      const int64_t start = (tile + c) * kLanes<T>;
      const Cut cut = cut_of<T, R>(v, row, live, start);
      if (F::kOfProducts) {
        // The products are there.
      } else if (multiplied) {
        const T *row_norms = v.rows.norms + row, *column_norms = v.columns.norms + start;
        distances_from_products<T, R>(rows, row_norms, columns, column_norms, v.dim, cut, products, r[c]);
      } else {
        distances_from_differences<T, R>(rows, columns, v.dim, r[c]);
      }
      double* column_sums = v.column_sums ? v.column_sums + start : nullptr;
      if (v.gradient) {
        visit_tile<T, F, R, true>(f, r[c], cut, total, column_sums, v.scratch + visited++ * kLanes<T>);
      } else {
        visit_tile<T, F, R, false>(f, r[c], cut, total, column_sums, nullptr);
      }
    }
  }
  if (visited > 0) {
    const T* columns = v.columns.data + first_tile * kLanes<T> * v.dim;
    double* gradient = v.gradient + (row - v.first) * v.dim;
    const double factor = F::kOfProducts ? v.weight : 2 * v.weight;
    add_gradient<T, R, F::kOfProducts>(rows, columns, visited, v.dim, v.scratch, live, factor, gradient);
  }
  double sum = 0;
  for (const Vec<double>& part : total.parts) sum += sum_lanes<double>(part);
  return sum;
}

// Strip by strip, so that the columns of a strip stay in the second cache while all rows of the visit pass over them.
template <class T, class F>
double visit_pairs(const Visit<T>& v, const F& f) {
  double total = 0;
  Products products{v.dim >= kProductWidth, v.column_sums != nullptr};
  const int64_t end = tiles<T>(v.last_column);
  for (int64_t strip = v.first_column / kLanes<T>; strip < end; strip += kStripTiles) {
    const int64_t strip_end = strip + kStripTiles < end ? strip + kStripTiles : end;
    for (int64_t row = v.first; row < v.last; row += kRows<T>) {
      const int live = int(v.last - row < kRows<T> ? v.last - row : kRows<T>);
      total += live == 1 ? visit_rows<T, F, 1>(v, f, row, 1, strip, strip_end, products)
                         : visit_rows<T, F, kRows<T>>(v, f, row, live, strip, strip_end, products);
    }
  }
  return total;
}

// f in double precision: it is evaluated for each row alone, and a closed form
// may bend where float resolves its argument badly.
template <class T, class F>
double visit_norms(const Visit<T>& v, const F& f) {
  constexpr int L = kLanes<T>, D = kLanes<double>;
  double total = 0;
  for (int64_t start = v.first; start < v.last; start += L) {
    const T* rows = v.rows.data + start * v.dim;
    Batch<double, L / D> r, value, slope;
    for (int i = 0; i < L; ++i) r[i / D][i % D] = v.rows.norms[start + i];
    f.template operator()<true, L / D>(r, value, slope);
    const int live = int(v.last - start < L ? v.last - start : L);
    for (int i = 0; i < live; ++i) {
      total += value[i / D][i % D];
      if (v.column_sums) v.column_sums[start - v.first + i] += value[i / D][i % D];
      if (!v.gradient) continue;
      const double factor = 2 * v.weight * slope[i / D][i % D];
      for (int64_t d = 0; d < v.dim; ++d) v.gradient[(start - v.first + i) * v.dim + d] += factor * rows[d * L + i];
    }
  }
  return total;
}

constexpr int kUsualScales = 7;  // mow_kernels.SCALES

template <class T>
double visit(const Visit<T>& v) {
  const Radial<T>& f = *v.radial;
  switch (f.family) {
    case Family::kRational:
      return f.scales == kUsualScales ? visit_pairs(v, Rational<T, kUsualScales>{f}) : visit_pairs(v, Rational<T, 0>{f});
    case Family::kExponentials:
      return visit_pairs(v, Exponentials<T>{f});
    case Family::kSeriesHalf:
      return visit_pairs(v, Series<T, 1>{f});
    case Family::kRoot:
      return visit_pairs(v, Root<T>{});
    case Family::kLaplacian:
      return visit_pairs(v, Laplacian<T>{f});
    case Family::kPowers:
      return visit_pairs(v, Powers<T>{f});
    case Family::kProducts:
      return visit_pairs(v, PowerOfProduct<T>{f});
    default:  // for norms alone
      __builtin_unreachable();
  }
}

template <class T>
double visit_origin(const Visit<T>& v, const Radial<double>& f) {
  switch (f.family) {
    case Family::kExponentials:
      return visit_norms(v, Exponentials<double>{f});
    case Family::kSeriesHalf:
      return visit_norms(v, Series<double, 1>{f});
    case Family::kSeriesOne:
      return visit_norms(v, Series<double, 2>{f});
    case Family::kSeriesRoot:
      return visit_norms(v, Series<double, -1>{f});
    case Family::kSeriesPowers:
      return visit_norms(v, SeriesOfPowers<double>{f});
    case Family::kPolynomial:
      return visit_norms(v, Polynomial<double>{f});
    case Family::kProducts:
      return visit_norms(v, PowerOfProduct<double>{f});
    default:  // for pairs alone
      __builtin_unreachable();
  }
}

template <class T>
void pack(
    const T* rows, int64_t count, int64_t row_stride, int64_t column_stride, int64_t dim, T* panel, T* norms) {
  constexpr int L = kLanes<T>;
  for (int64_t start = 0; start < count; start += L, panel += L * dim) {
    const T* from = rows + start * row_stride;
    const int filled = int(count - start < L ? count - start : L);
    int64_t d = 0;
    for (; column_stride == 1 && d + L <= dim; d += L) {
      Batch<T, L> square;
      for (int i = 0; i < L; ++i) square[i] = i < filled ? load(from + i * row_stride + d) : Vec<T>{};
      transpose<T>(square);
      for (int i = 0; i < L; ++i) store(panel + (d + i) * L, square[i]);
    }
    for (; d < dim; ++d) {
      for (int i = 0; i < L; ++i) panel[d * L + i] = i < filled ? from[i * row_stride + d * column_stride] : 0;
    }
    Vec<T> norm{};
    for (int64_t run = 0; run < dim; run += kRun) {
      Vec<T> sum{};
      for (d = run; d < dim && d < run + kRun; ++d) sum += load(panel + d * L) * load(panel + d * L);
      norm += sum;
    }
    store(norms + start, norm);
  }
}

}  // namespace

extern const Kernels<float> float_kernels{
    kLanes<float>, kRows<float> * kStrip<float>, pack<float>, visit<float>, visit_origin<float>};
extern const Kernels<double> double_kernels{
    kLanes<double>, kRows<double> * kStrip<double>, pack<double>, visit<double>, visit_origin<double>};

}  // namespace mow::cpu::MOW_ISA
