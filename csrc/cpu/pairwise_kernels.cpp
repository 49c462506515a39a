// Register tiles of kRows x kLanes pairs: squared distances, then the radial function, then the gradient of the rows,
// while all of it is in registers or in the first cache.
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
constexpr int kBatch = 8;
#else
constexpr int kBatch = 4;
#endif

constexpr int kStripTiles = 32;  // tiles whose derivatives are kept at once for the gradient
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
struct Rows {
  static constexpr int L = kLanes<T>, kTiles = (R + L - 1) / L;
  const T* tile[kTiles];

  Rows(const Panel<T>& panel, int64_t row, int64_t dim) {
    for (int t = 0; t < kTiles; ++t) {
      const int64_t first = t == 0 || row + t * L < panel.rows ? row + t * L : row;
      tile[t] = panel.data + first / L * L * dim + first % L;
    }
  }

  T at(int i, int64_t d) const { return tile[i / L][d * L + i % L]; }
};

// For R rows and a vector of columns the sums over all coordinates of `add(sum, row's, columns')`.
template <class T, int R, class Add>
inline void sum_coordinates(
    const Rows<T, R>& rows, const T* columns, int64_t dim, Batch<T, R>& sums, const Add& add) {
  for (auto& sum : sums) sum = Vec<T>{};
  for (int64_t start = 0; start < dim; start += kRun) {
    const int64_t end = start + kRun < dim ? start + kRun : dim;
    Batch<T, R> run = {};
    for (int64_t d = start; d < end; ++d) {
      const Vec<T> x = load(columns + d * kLanes<T>);
      for (int i = 0; i < R; ++i) add(run[i], rows.at(i, d), x);
    }
    for (int i = 0; i < R; ++i) sums[i] += run[i];
  }
}

template <class T, int R>
inline void distances_from_differences(const Rows<T, R>& rows, const T* columns, int64_t dim, Batch<T, R>& r) {
  sum_coordinates<T, R>(rows, columns, dim, r, [](Vec<T>& sum, T a, const Vec<T>& b) {
    const Vec<T> difference = b - a;
    sum += difference * difference;
  });
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

// |row_i - column_j|^2.
template <class T, int R>
inline void squared_distances(
    const Rows<T, R>& rows, const T* row_norms, const T* columns, const T* column_norms, int64_t dim, const Cut& cut,
    Products& products, Batch<T, R>& r) {
  if (!products.worthwhile()) return distances_from_differences<T, R>(rows, columns, dim, r);
  sum_coordinates<T, R>(rows, columns, dim, r, [](Vec<T>& sum, T a, const Vec<T>& b) { sum += a * b; });
  const Vec<T> norms = load(column_norms);
  Int<T> cancelled{};
  const auto cancels = [&](int i) { return ~(r[i] >= T(kCancelled) * (norms + row_norms[i])); };  // a NaN does
  for (int i = 0; i < R; ++i) {
    r[i] = norms + row_norms[i] - 2 * r[i];
    cancelled |= cut.needed ? cancels(i) & cut.counts<T>(i) : cancels(i);
  }
  ++products.tiles;
  if (__builtin_expect(!any<T>(cancelled), true)) return;
  ++products.cancelled;
  Batch<T, R> exact;
  distances_from_differences<T, R>(rows, columns, dim, exact);
  for (int i = 0; i < R; ++i) r[i] = cancels(i) ? exact[i] : r[i];
}

// One tile: returns the sum of f; adds it to the sums of the columns where these are not null; and for a gradient stores
// f' at slopes[i * kStrip + column].
template <class T, class F, int R, bool kSlope>
inline double visit_tile(const F& f, const Batch<T, R>& r, const Cut& cut, double* column_sums, T* slopes) {
  constexpr int B = R < kBatch ? R : kBatch;
  Vec<T> total{};
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
      total += value[b];
      if constexpr (kSlope) store(slopes + i * kStrip<T>, slope[b]);
    }
    if (column_sums == nullptr) continue;
    for (int part = 0; part < Doubles<T>::kParts; ++part) {
      Vec<double> sum = load(column_sums + part * kLanes<double>);
      for (int b = 0; b < B; ++b) sum += widen<T>(value[b]).parts[part];
      store(column_sums + part * kLanes<double>, sum);
    }
  }
  return sum_lanes<T>(total);
}

// gradient[i] += factor * sum_j slopes[i][j] (row_i - column_j) over the first `count` tiles of a strip.
template <class T, int R>
inline void add_gradient(
    const Rows<T, R>& rows, const T* columns, int64_t count, int64_t dim, const T* slopes, int live, double factor,
    double* gradient) {
  for (int64_t d = 0; d < dim; ++d) {
    Batch<T, R> sum = {};
    for (int64_t tile = 0; tile < count; ++tile) {
      const Vec<T> x = load(columns + (tile * dim + d) * kLanes<T>);
      for (int i = 0; i < R; ++i) {
        sum[i] += load(slopes + i * kStrip<T> + tile * kLanes<T>) * (rows.at(i, d) - x);
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
  const Rows<T, R> rows(v.rows, row, v.dim);
  double total = 0;
  int64_t visited = 0;
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    const int64_t start = tile * kLanes<T>;
    const int64_t left = v.last_column - start, skipped = v.first_column - start;
    Cut cut{live < R || left < kLanes<T> || skipped > 0, live, skipped, left, 0, -kRows<T>};
    if (v.pairs == Pairs::kBelow || v.pairs == Pairs::kUpTo) {
      cut.below = row - start + (v.pairs == Pairs::kUpTo), cut.rise = 1;
      cut.needed |= cut.below < kLanes<T>;
      if (cut.below + live <= 1) break;
    } else if (v.pairs == Pairs::kOthers) {
      cut.own = row - start;
      cut.needed |= cut.own > -R && cut.own < kLanes<T>;
    }
    Batch<T, R> r;
    squared_distances<T, R>(
        rows, v.rows.norms + row, v.columns.data + start * v.dim, v.columns.norms + start, v.dim, cut, products, r);
    double* column_sums = v.column_sums ? v.column_sums + start : nullptr;
    if (v.gradient) {
      total += visit_tile<T, F, R, true>(f, r, cut, column_sums, v.scratch + visited++ * kLanes<T>);
    } else {
      total += visit_tile<T, F, R, false>(f, r, cut, column_sums, nullptr);
    }
  }
  if (visited > 0) {
    const T* columns = v.columns.data + first_tile * kLanes<T> * v.dim;
    double* gradient = v.gradient + (row - v.first) * v.dim;
    add_gradient<T, R>(rows, columns, visited, v.dim, v.scratch, live, 2 * v.weight, gradient);
  }
  return total;
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

template <class T, class Run>
double with_family(const Radial<T>& f, const Run& run) {
  switch (f.family) {
    case Family::kRational:
      return run(Rational<T>{f});
    case Family::kExponentials:
      return run(Exponentials<T>{f});
    case Family::kSeriesHalf:
      return run(Series<T, true>{f});
    case Family::kSeriesOne:
      return run(Series<T, false>{f});
  }
  __builtin_unreachable();
}

template <class T>
double visit(const Visit<T>& v) {
  return with_family(*v.radial, [&](const auto& f) { return visit_pairs(v, f); });
}

template <class T>
double visit_origin(const Visit<T>& v, const Radial<double>& f) {
  return with_family(f, [&](const auto& f) { return visit_norms(v, f); });
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
