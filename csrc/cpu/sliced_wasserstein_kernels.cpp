// Sliced-Wasserstein: projections on kLanes directions at once, a row's in a vector; the columns sorted by a network; and
// for the gradient only the ranks of the current rows. Compiled once per instruction set (csrc/cpu/isa.h).

#include "cpu/sliced_wasserstein_kernels.h"

#include <cmath>

#include "cpu/sort.h"

namespace mow::cpu::MOW_ISA {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
Matrix<T> transposed(const Matrix<T>& m) {
  return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

// Columns [first, first + kLanes) as vectors [rows], the next `stride` behind the one before, with zeros from the last
// column on.
template <class T>
void pack(const Matrix<T>& matrix, int64_t first, Vec<T>* packed, int64_t stride = 1) {
  const int64_t columns = smaller(matrix.columns - first, kLanes<T>);
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const T* from = matrix.data + row * matrix.row_stride + first * matrix.column_stride;
    Vec<T> lanes{};
    if (columns == kLanes<T> && matrix.column_stride == 1) {
      lanes = load(from);
    } else {
      for (int64_t lane = 0; lane < columns; ++lane) lanes[lane] = from[lane * matrix.column_stride];
    }
    packed[row * stride] = lanes;
  }
}

template <class T>
inline void put(Vec<T>& to, Vec<T> product) {
  to = product;
}

template <class T>
inline void put(Int<T>& to, Vec<T> product) {
  to = encode<T>(product);
}

// sums [kRows][kVectors] = some columns of kRows rows times the same columns in packed [column][kVectors]. Not inlined: GCC
// runs out of registers where more is going on around it.
template <int kRows, int kVectors, class T>
__attribute__((noinline)) void multiply_run(
    const T* rows, int64_t row_stride, int64_t column_stride, const Vec<T>* packed, const Vec<T>* end,
    Vec<T> (&sums)[kRows][kVectors]) {
  Vec<T> run[kRows][kVectors] = {};
  const T* row[kRows];
  for (int i = 0; i < kRows; ++i) row[i] = rows + i * row_stride;
  for (int64_t at = 0; packed != end; packed += kVectors, at += column_stride) {
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < kVectors; ++v) run[i][v] += row[i][at] * packed[v];
    }
  }
  std::memcpy(sums, run, sizeof run);
}

// A product is summed in runs of kRun columns, the same for every row wherever it stands: equal rows have equal products,
// and the rounding error does not grow with the whole width. All rows, kRows at a time, then what is left by halves.
template <int kRows, int kVectors, class T, class Out>
void multiply_all(
    const Matrix<T>& matrix, const Vec<T>* packed, Out* products, int64_t stride, int64_t row = 0) {
  constexpr int64_t kRun = 128;
  for (; row + kRows <= matrix.rows; row += kRows) {
    const T* rows = matrix.data + row * matrix.row_stride;
    Vec<T> sums[kRows][kVectors], run[kRows][kVectors];
    const auto multiply_from = [&](int64_t column, Vec<T>(&to)[kRows][kVectors]) {
      multiply_run<kRows, kVectors>(
          rows + column * matrix.column_stride, matrix.row_stride, matrix.column_stride, packed + column * kVectors,
          packed + smaller(column + kRun, matrix.columns) * kVectors, to);
    };
    multiply_from(0, sums);
    for (int64_t column = kRun; column < matrix.columns; column += kRun) {
      multiply_from(column, run);
      for (int i = 0; i < kRows; ++i) {
        for (int v = 0; v < kVectors; ++v) sums[i][v] += run[i][v];
      }
    }
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < kVectors; ++v) put<T>(products[row + i + v * stride], sums[i][v]);
    }
  }
  if constexpr (kRows > 1) multiply_all<kRows / 2, kVectors>(matrix, packed, products, stride, row);
}

// products [kVectors][rows], the next `stride` behind the one before: the matrix times the columns in packed [D][kVectors],
// as numbers or as keys. As many sums as the registers hold beside a vector of each group and a row's number.
template <int kVectors, class T, class Out>
void multiply(const Matrix<T>& matrix, const Vec<T>* packed, Out* products, int64_t stride) {
  constexpr int kFitting = (kVectorRegisters - kVectors - 1) / kVectors;
  multiply_all<(kFitting < 8 ? kFitting : 8), kVectors>(matrix, packed, products, stride);
}

// Some of a row's numbers as a vector, zeros beyond them.
template <class T>
inline Vec<T> load_some(const T* from, int64_t stride, int64_t count) {
  if (stride == 1 && count >= kLanes<T>) return load(from);
  Vec<T> v{};
  for (int64_t lane = 0; lane < smaller(count, kLanes<T>); ++lane) v[lane] = from[lane * stride];
  return v;
}

// The keys of the products with a few columns from `first` on, in the first lanes of products [rows], zeros in the others.
// Vectors run along the rows, and as many products as there are lanes are summed together.
template <int kColumns, class T>
void multiply_few(const Matrix<T>& matrix, const Matrix<T>& columns, int64_t first, Int<T>* products) {
  constexpr int kRows = kLanes<T> / kColumns;
  const int64_t blocks = (matrix.columns + kLanes<T> - 1) / kLanes<T>;
  const auto load_block = [&](const T* from, int64_t stride, int64_t block) {
    return load_some(from + block * kLanes<T> * stride, stride, matrix.columns - block * kLanes<T>);
  };
  VectorMemory<Vec<T>> packed(blocks * kColumns);
  for (int64_t i = 0; i < blocks * kColumns; ++i) {
    const int64_t column = first + i % kColumns;
    packed[i] = column < columns.columns
        ? load_block(columns.data + column * columns.column_stride, columns.row_stride, i / kColumns)
        : Vec<T>{};
  }
  for (int64_t row = 0; row < matrix.rows; row += kRows) {
    const int64_t here = smaller(kRows, matrix.rows - row);
    Vec<T> sums[kLanes<T>] = {};
    for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vec<T> x = load_block(
            matrix.data + (row + smaller(i, here - 1)) * matrix.row_stride, matrix.column_stride, block);
#pragma GCC unroll 4
        for (int j = 0; j < kColumns; ++j) sums[i * kColumns + j] += x * packed[block * kColumns + j];
      }
    }
    const Int<T> keys = encode<T>(sum_each<T>(sums));
    for (int64_t i = 0; i < here; ++i) {
      products[row + i] = Int<T>{};
      for (int j = 0; j < kColumns; ++j) products[row + i][j] = keys[i * kColumns + j];
    }
  }
}

template <class T>
Int<T>* vectors(SignedKey<T>* keys) {
  return reinterpret_cast<Int<T>*>(keys);
}

// As project, of one group: the last one, in which few directions are left.
template <class T, int kColumns = 1>
void project_few(const Projected<T>* samples, int64_t count, const Matrix<T>& directions, int64_t first, int64_t group) {
  if constexpr (2 * kColumns <= kLanes<T> / 4) {
    const int64_t left = directions.columns - first - group * kLanes<T>;
    if (left > kColumns) return project_few<T, 2 * kColumns>(samples, count, directions, first, group);
  }
  for (int64_t i = 0; i < count; ++i) {
    const Projected<T>& sample = samples[i];
    multiply_few<kColumns>(
        sample.rows, directions, first + group * kLanes<T>, vectors<T>(sample.keys) + group * sample.stride);
  }
}

template <class T>
void project(const Projected<T>* samples, int64_t count, const Matrix<T>& directions, int64_t first, int64_t groups) {
  constexpr int kMost = 4;
  const int64_t dim = directions.rows, in_last = directions.columns - first - (groups - 1) * kLanes<T>;
  const int64_t full = groups - (in_last <= kLanes<T> / 4 && dim >= kLanes<T>);
  VectorMemory<Vec<T>> packed(kMost * dim);
  int64_t group = 0;
  const auto next = [&]<int kVectors>() {
    for (int v = 0; v < kVectors; ++v) pack(directions, first + (group + v) * kLanes<T>, packed + v, kVectors);
    for (int64_t i = 0; i < count; ++i) {
      const Projected<T>& sample = samples[i];
      multiply<kVectors>(sample.rows, packed, vectors<T>(sample.keys) + group * sample.stride, sample.stride);
    }
    group += kVectors;
  };
  while (full - group >= kMost) next.template operator()<kMost>();
  if (full - group == 3) next.template operator()<3>();
  if (full - group == 2) next.template operator()<2>();
  if (full - group == 1) next.template operator()<1>();
  if (full < groups) project_few<T>(samples, count, directions, first, full);
}

// The cost of differences, and the derivative for one.
struct Absolute {
  Vec<double> cost(Vec<double> d) const { return d < 0 ? -d : d; }
  double slope(double d) const { return (d > 0) - (d < 0); }
};

struct Square {
  Vec<double> cost(Vec<double> d) const { return d * d; }
  double slope(double d) const { return 2 * d; }
};

struct Power {
  double p;

  Vec<double> cost(Vec<double> d) const {
    for (int lane = 0; lane < kLanes<double>; ++lane) d[lane] = std::pow(std::fabs(d[lane]), p);
    return d;
  }
  double slope(double d) const { return p * std::pow(std::fabs(d), p - 1) * ((d > 0) - (d < 0)); }
};

// The steps of the two quantile functions on one grid: row i of n covers [i, i+1) * per_row, row j of m covers
// [j, j+1) * per_prior, both out of `whole`.
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
};

// The projections of the window and the prior on a group of directions.
template <class T>
class Matching {
 public:
  Matching(const Slicing<T>& slicing, const Group<T>& group)
      : s_(slicing),
        first_(group.first),
        k_(slicing.current.rows),
        n_(slicing.history.rows + k_),
        lanes_(smaller(slicing.directions.columns - first_, kLanes<T>)),
        window_(vectors<T>(group.window)),
        prior_(vectors<T>(group.prior)),
        current_(vectors<T>(group.current)),
        ranks_(vectors<T>(group.ranks)),
        coupling_(n_, slicing.normal ? n_ : slicing.prior.rows) {}

  // Of a sorted window.
  template <class Cost>
  void costs(const Cost& cost, double* costs) const {
    Doubles<T> sums{};
    const auto add = [&](int64_t i, int64_t j, double width) __attribute__((always_inline)) {
      const Doubles<T> difference = widen<T>(decode<T>(window_[i]) - prior(j));
      for (int part = 0; part < Doubles<T>::kParts; ++part) sums.parts[part] += width * cost.cost(difference.parts[part]);
    };
    if (coupling_.per_row == coupling_.per_prior) {  // n = m
      for (int64_t i = 0; i < n_; ++i) add(i, i, 1);
    } else {
      for (int64_t i = 0, j = 0, at = 0; at < coupling_.whole;) {
        const int64_t row_end = (i + 1) * coupling_.per_row, prior_end = (j + 1) * coupling_.per_prior;
        const int64_t end = smaller(row_end, prior_end);
        add(i, j, double(end - at));
        i += end == row_end;
        j += end == prior_end;
        at = end;
      }
    }
    for (auto& part : sums.parts) {
      store(costs, part / double(coupling_.whole));
      costs += kLanes<double>;
    }
  }

  // After find_ranks or count_ranks: slopes [k, lanes_] = weight * d cost / d projection.
  template <class Cost>
  void slopes(const Cost& cost, double weight, T* slopes, int64_t stride) const {
    const double scale = weight / double(coupling_.whole);
    for (int64_t row = 0; row < k_; ++row) {
      const Vec<T> x = decode<T>(current_[row]);
      for (int64_t lane = 0; lane < lanes_; ++lane) {
        slopes[row * stride + lane] = T(scale * sum_slopes(cost, x[lane], ranks_[row][lane], lane));
      }
    }
  }

  // The ranks of the current rows in the window as it came, without its being sorted.
  void count_ranks() {
    int64_t row = 0;
    for (; row + kSearches <= k_; row += kSearches) count<kSearches>(row);
    for (; row < k_; ++row) count<1>(row);
  }

  // The ranks of the current rows in the sorted window. Equal keys take theirs in the order of the rows: where there are
  // any, the earlier rows with the same key are counted.
  void find_ranks() {
    count_below(current_, k_, ranks_);
    int64_t ties = 0;
    for (int64_t row = 0; row < k_; ++row) ties += is_tied(row);
    if (ties == 0) return;
    VectorMemory<Int<T>> memory(2 * n_ - k_);
    Int<T>*const history = memory, *const seen = memory + (n_ - k_);
    const Projected<T> again{s_.history, reinterpret_cast<SignedKey<T>*>(history), n_ - k_};
    project(&again, 1, s_.directions, first_, 1);
    ties <= kFewTies ? scan_ties(history) : count_ties(history, seen);
  }

 private:
  static constexpr int64_t kFewTies = 128;

  Vec<T> prior(int64_t row) const { return prior_ ? decode<T>(prior_[row]) : broadcast(T(s_.normal[row])); }

  // Earlier rows are counted where they are equal, later ones are not.
  template <int kCount>
  void count(int64_t first) {
    Int<T> x[kCount], ranks[kCount] = {};
    for (int i = 0; i < kCount; ++i) x[i] = current_[first + i];
    const int64_t earlier = n_ - k_ + first;
    for (int64_t other = 0; other < earlier; ++other) {
      for (int i = 0; i < kCount; ++i) ranks[i] -= window_[other] <= x[i];
    }
    for (int64_t other = earlier; other < n_; ++other) {
      for (int i = 0; i < kCount; ++i) {
        ranks[i] -= other < earlier + i ? window_[other] <= x[i] : window_[other] < x[i];
      }
    }
    for (int i = 0; i < kCount; ++i) ranks_[first + i] = ranks[i];
  }

  bool is_tied(int64_t row) const {
    for (int lane = 0; lane < lanes_; ++lane) {
      const int64_t next = ranks_[row][lane] + 1;
      if (next < n_ && window_[next][lane] == current_[row][lane]) return true;
    }
    return false;
  }

  // O(n) for each tied row, but little of it. Rounding alone ties a few of some thousand rows.
  void scan_ties(const Int<T>* history) {
    for (int64_t row = 0; row < k_; ++row) {
      if (!is_tied(row)) continue;
      Int<T> earlier{};
      for (int64_t other = 0; other < n_ - k_; ++other) earlier -= history[other] == current_[row];
      for (int64_t other = 0; other < row; ++other) earlier -= current_[other] == current_[row];
      ranks_[row] += earlier;
    }
  }

  // O(log n) for each row of the window. Overwrites history; seen [n] counts the rows met so far, where their keys begin.
  void count_ties(Int<T>* history, Int<T>* seen) {
    for (int64_t row = 0; row < n_; ++row) seen[row] = Int<T>{};
    count_below(history, n_ - k_, history);
    for (int64_t row = 0; row < n_ - k_; ++row) {
      for (int lane = 0; lane < lanes_; ++lane) ++seen[history[row][lane]][lane];
    }
    for (int64_t row = 0; row < k_; ++row) {
      for (int lane = 0; lane < lanes_; ++lane) ranks_[row][lane] += seen[ranks_[row][lane]][lane]++;
    }
  }

  // below [count] = for each lane, how many of the window's keys are below the given one. Several rows at a time, because
  // a search waits for memory.
  void count_below(const Int<T>* keys, int64_t count, Int<T>* below) const {
    int64_t row = 0;
    for (; row + kSearches <= count; row += kSearches) search<kSearches>(keys + row, below + row);
    for (; row < count; ++row) search<1>(keys + row, below + row);
  }

  static constexpr int kSearches = 4;

  template <int kCount>
  void search(const Int<T>* keys, Int<T>* below) const {
    const Key<T>* flat = reinterpret_cast<const Key<T>*>(window_);
    Int<T> found[kCount] = {};
    for (Key<T> rest = Key<T>(n_); rest > 0; rest /= 2) {
      const Key<T> half = (rest + 1) / 2;
      for (int i = 0; i < kCount; ++i) {
        const Int<T> at = (found[i] + (half - 1)) * kLanes<T> + lane_numbers<T>();
        Int<T> probes;
        for (int lane = 0; lane < kLanes<T>; ++lane) probes[lane] = flat[at[lane]];
        found[i] += (probes < keys[i]) & half;
      }
    }
    for (int i = 0; i < kCount; ++i) below[i] = found[i];
  }

  // The sum over the prior's steps that the row of this rank covers of width * slope.
  template <class Cost>
  double sum_slopes(const Cost& cost, T x, int64_t rank, int64_t lane) const {
    const int64_t end = (rank + 1) * coupling_.per_row;
    int64_t at = rank * coupling_.per_row;
    int64_t j = coupling_.per_prior == 1 ? at : at / coupling_.per_prior;
    double sum = 0;
    for (; at < end; ++j) {
      const int64_t next = smaller(end, (j + 1) * coupling_.per_prior);
      sum += double(next - at) * cost.slope(x - prior(j)[lane]);
      at = next;
    }
    return sum;
  }

  const Slicing<T>& s_;
  const int64_t first_, k_, n_;
  const int64_t lanes_;  // of directions that exist
  const Int<T>* const window_;
  const Int<T>* const prior_;
  const Int<T>* const current_;
  Int<T>* const ranks_;
  const Coupling coupling_;
};

template <class T>
void match(const Slicing<T>& slicing, const Group<T>& group, double weight, double* costs, T* slopes, int64_t slope_stride) {
  Matching<T> matching(slicing, group);
  if (slopes) group.sorted ? matching.find_ranks() : matching.count_ranks();
  const auto with = [&](const auto& cost) {
    if (costs) matching.costs(cost, costs);
    if (slopes) matching.slopes(cost, weight, slopes, slope_stride);
  };
  if (slicing.p == 2) return with(Square{});
  if (slicing.p == 1) return with(Absolute{});
  with(Power{slicing.p});
}

template <class T>
void sort(SignedKey<T>* keys, int64_t rows, int64_t columns) {
  sort_columns<T>(vectors<T>(keys), rows, columns);
}

template <class T>
void spread(const Matrix<T>& slopes, const Matrix<T>& directions, int64_t first, bool add, T* g_current) {
  const int64_t dim = directions.rows, rows = smaller(slopes.rows - first, kLanes<T>);
  VectorMemory<Vec<T>> memory(directions.columns + dim);
  Vec<T>*const packed = memory, *const products = memory + directions.columns;
  pack(transposed(slopes), first, packed);
  multiply<1>(directions, packed, products, dim);
  for (int64_t row = 0; row < rows; ++row) {
    T* to = g_current + (first + row) * dim;
    for (int64_t d = 0; d < dim; ++d) to[d] = add ? to[d] + products[d][row] : products[d][row];
  }
}

template <class T>
double cost(const SignedKey<T>* sorted, const T* means, int64_t n) {
  Doubles<T> sums{};
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    Int<T> keys{};
    Vec<T> bins{};
    if (n - i >= kLanes<T>) {
      std::memcpy(&keys, sorted + i, sizeof keys);
      bins = load(means + i);
    } else {
      std::memcpy(&keys, sorted + i, (n - i) * sizeof(T));
      std::memcpy(&bins, means + i, (n - i) * sizeof(T));
    }
    const Doubles<T> difference = widen<T>(decode<T>(keys) - bins);
    for (int part = 0; part < Doubles<T>::kParts; ++part) {
      sums.parts[part] += difference.parts[part] * difference.parts[part];
    }
  }
  double sum = 0;
  for (const auto& part : sums.parts) sum += sum_lanes<double>(part);
  return sum / double(n);
}

template <class T>
T slope(SignedKey<T> key, T mean, double weight) {
  return T(weight * Square{}.slope((decode<T>(Int<T>{} + key) - mean)[0]));
}

}  // namespace

extern const SlicedKernels<float> float_sliced_kernels{
    kLanes<float>, project<float>, sort<float>, match<float>, spread<float>, cost<float>, slope<float>};
extern const SlicedKernels<double> double_sliced_kernels{
    kLanes<double>, project<double>, sort<double>, match<double>, spread<double>, cost<double>, slope<double>};

}  // namespace mow::cpu::MOW_ISA
