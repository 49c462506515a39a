// Sorts the columns of an array of rows, kLanes<T> columns at once: a vector is a row. A few columns are folded first.
//
// A bitonic network in which every comparator puts the smaller key into the lower row. The rows from n up to the next
// power of two would hold the largest key and keep it through the whole network, so they exist only in thought.
// Groups of up to kGroup rows go through several levels of comparators between one load and one store.
#pragma once

#include "cpu/simd.h"

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorRegisters = 16;
#endif

template <class T>
using Key = typename MaskOf<T>::Lane;

template <class T>
constexpr Key<T> kLastKey = Key<T>(~(uint64_t{1} << (8 * sizeof(T) - 1)));

// Integers in the order of the numbers: comparing them is total (a NaN goes to an end) and no slower, on some machines
// twice as fast. Both zeros become +0, so that equal numbers have equal keys.
template <class T>
inline Int<T> encode(Vec<T> values) {
  const Int<T> bits = reinterpret_cast<Int<T>>(values + T(0));
  return bits ^ ((bits >> (8 * sizeof(T) - 1)) & kLastKey<T>);
}

template <class T>
inline Vec<T> decode(Int<T> keys) {
  return reinterpret_cast<Vec<T>>(keys ^ ((keys >> (8 * sizeof(T) - 1)) & kLastKey<T>));
}

template <class T>
class ColumnSort {
 public:
  // Sorts keys [n], each lane ascending. Exact for every bit pattern; O(n log^2 n) comparators, no memory.
  static void run(Int<T>* keys, int64_t n) {
    int64_t size = kGroup;
    while (size < n) size *= 2;
    ColumnSort{keys, n}.sort(0, size);
  }

  // The same where each lane ascends and then descends, or the other way round. n is a power of two.
  static void run_bitonic(Int<T>* keys, int64_t n) { ColumnSort{keys, n}.template merge<false>(0, n); }

 private:
  static constexpr int kGroup = kVectorRegisters / 2;

  Int<T>* keys_;
  int64_t n_;

  ColumnSort(Int<T>* keys, int64_t n) : keys_(keys), n_(n) {}

  void sort(int64_t first, int64_t size) const {
    if (first + 1 >= n_) return;
    if (size == kGroup) return on_group<kGroup>(first, first + kGroup / 2, 1, sort_group<kGroup>);
    const int64_t half = size / 2;
    sort(first, half);
    if (first + half >= n_) return;
    sort(first + half, half);
    merge<true>(first, size);
  }

  // Two ascending halves (kMirrored), or an ascending and a descending one. The first pass is the narrow one, so that every
  // later pass fills a group.
  template <bool kMirrored>
  void merge(int64_t first, int64_t size) const {
    int64_t rest = size;
    while (rest > kGroup) rest /= kGroup;
    if (rest == 2) return merge_pass<2, kMirrored>(first, size);
    if (rest == 4) return merge_pass<4, kMirrored>(first, size);
    if (rest == 8) return merge_pass<8, kMirrored>(first, size);
    merge_pass<kGroup, kMirrored>(first, size);
  }

  // log2(kSize) levels of a merge: first row with last, second with last but one (kMirrored) or halves row by row.
  template <int kSize, bool kMirrored>
  void merge_pass(int64_t first, int64_t size) const {
    const int64_t step = size / kSize;
    for (int64_t i = 0; i < step; ++i) {
      on_group<kSize>(first + i, first + size / 2 + (kMirrored ? step - 1 - i : i), step, merge_group<kSize, kMirrored>);
    }
    if (step == kGroup) {
      for (int64_t row = first; row < first + size && row + 1 < n_; row += kGroup) {
        on_group<kGroup>(row, row + kGroup / 2, 1, merge_group<kGroup, false>);
      }
    } else if (step > 1) {
      for (int64_t row = first; row < first + size && row + 1 < n_; row += step) merge_pass<kGroup, false>(row, step);
    }
  }

  // Loads kSize rows, half from `low` and half from `high` upwards, compares them, stores them.
  template <int kSize, class Compare>
  inline __attribute__((always_inline)) void on_group(int64_t low, int64_t high, int64_t step, Compare compare) const {
    constexpr int kHalf = kSize / 2;
    if (high + (kHalf - 1) * step >= n_) return on_last_group<kSize>(low, high, step, compare);
    Int<T>*const lower = keys_ + low, *const upper = keys_ + high;
    Int<T> group[kSize];
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) group[i] = lower[i * step], group[kHalf + i] = upper[i * step];
    compare(group);
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) lower[i * step] = group[i], upper[i * step] = group[kHalf + i];
  }

  // The same where some of the rows exist only in thought.
  template <int kSize, class Compare>
  __attribute__((noinline)) void on_last_group(int64_t low, int64_t high, int64_t step, Compare compare) const {
    const auto row = [=](int i) { return i < kSize / 2 ? low + i * step : high + (i - kSize / 2) * step; };
    Int<T> group[kSize];
    for (int i = 0; i < kSize; ++i) group[i] = row(i) < n_ ? keys_[row(i)] : Int<T>{} + kLastKey<T>;
    compare(group);
    for (int i = 0; i < kSize; ++i) {
      if (row(i) < n_) keys_[row(i)] = group[i];
    }
  }

  template <int kSize>
  static inline __attribute__((always_inline)) void sort_group(Int<T>* group) {
    if constexpr (kSize > 1) {
      sort_group<kSize / 2>(group);
      sort_group<kSize / 2>(group + kSize / 2);
      merge_group<kSize, true>(group);
    }
  }

  template <int kSize, bool kMirrored>
  static inline __attribute__((always_inline)) void merge_group(Int<T>* group) {
    if constexpr (kSize > 1) {
#pragma GCC unroll 8
      for (int i = 0; i < kSize / 2; ++i) order(group[i], group[kMirrored ? kSize - 1 - i : kSize / 2 + i]);
      merge_group<kSize / 2, false>(group);
      merge_group<kSize / 2, false>(group + kSize / 2);
    }
  }

  static inline __attribute__((always_inline)) void order(Int<T>& low, Int<T>& high) {
    const Int<T> a = low, b = high;
    low = a < b ? a : b;
#if defined(__AVX512F__)
    high = a ^ b ^ low;  // one instruction, which Intel's cores run beside a minimum, but not beside a maximum
#else
    high = a < b ? b : a;
#endif
  }
};

// Sorts the first kColumns lanes, a divisor of kLanes<T>, and leaves the others: each of these columns is cut into pieces,
// one a lane, which are sorted like columns and then merged across the lanes.
template <class T, int kColumns>
class FoldedSort {
 public:
  // O(n / kPieces log^2 n) comparators, and memory for n / kPieces rows or up to twice as many.
  static void run(Int<T>* keys, int64_t n) {
    int64_t rows = 2;
    while (rows * kPieces < n) rows *= 2;
    VectorMemory<Int<T>> memory(rows);
    FoldedSort sort{memory, rows};
    sort.fold(keys, n);
    ColumnSort<T>::run(sort.pieces_, rows);
    sort.template merge<1>();
    sort.unfold(keys, n);
  }

 private:
  static constexpr int kPieces = kLanes<T> / kColumns;

  Int<T>* pieces_;
  int64_t rows_;

  FoldedSort(Int<T>* pieces, int64_t rows) : pieces_(pieces), rows_(rows) {}

  // Where the piece's keys of a row are: kColumns lanes, so that lanes a piece apart belong to one column.
  Key<T>* place(int64_t piece, int64_t row) const {
    return reinterpret_cast<Key<T>*>(pieces_ + row) + piece * kColumns;
  }

  void fold(const Int<T>* keys, int64_t n) const {
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      for (int64_t row = 0; row < rows_; ++row) {
        const int64_t from = piece * rows_ + row;
        for (int i = 0; i < kColumns; ++i) place(piece, row)[i] = from < n ? keys[from][i] : kLastKey<T>;
      }
    }
  }

  void unfold(Int<T>* keys, int64_t n) const {
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      for (int64_t row = 0; row < rows_ && piece * rows_ + row < n; ++row) {
        for (int i = 0; i < kColumns; ++i) keys[piece * rows_ + row][i] = place(piece, row)[i];
      }
    }
  }

  // Runs of kRun pieces, ascending through one piece after the other, into runs of all of them.
  template <int kRun>
  void merge() const {
    if constexpr (kRun < kPieces) {
      order_lanes<kRun, 2 * kRun - 1, true>();
      merge_bitonic<kRun / 2>();
      ColumnSort<T>::run_bitonic(pieces_, rows_);
      merge<2 * kRun>();
    }
  }

  template <int kApart>
  void merge_bitonic() const {
    if constexpr (kApart > 0) {
      order_lanes<kApart, kApart, false>();
      merge_bitonic<kApart / 2>();
    }
  }

  // One level of comparators between pieces, the lower of which have no bit kBit in their number: piece by piece kExchange
  // (exclusive or), and row by row or first row with last.
  template <int kBit, int kExchange, bool kMirrored>
  void order_lanes() const {
    for (int64_t i = 0; i < rows_ / 2; ++i) {
      Int<T>&a = pieces_[i], &b = pieces_[kMirrored ? rows_ - 1 - i : rows_ / 2 + i];
      const Int<T> beside_a = exchange_lanes<T, kExchange * kColumns>(kMirrored ? b : a);
      const Int<T> beside_b = exchange_lanes<T, kExchange * kColumns>(kMirrored ? a : b);
      a = blend_lanes<T, kBit * kColumns>(a < beside_a ? a : beside_a, a < beside_a ? beside_a : a);
      b = blend_lanes<T, kBit * kColumns>(b < beside_b ? b : beside_b, b < beside_b ? beside_b : b);
    }
  }
};

// The first `columns` lanes ascending. What the others hold then is open.
template <class T, int kColumns = 1>
void sort_columns(Int<T>* keys, int64_t n, int64_t columns) {
  constexpr int64_t kFewestFolded = 256;  // rows: below, folding takes longer than it saves
  if constexpr (kColumns < kLanes<T>) {
    if (columns > kColumns) return sort_columns<T, 2 * kColumns>(keys, n, columns);
    if (n >= kFewestFolded) return FoldedSort<T, kColumns>::run(keys, n);
  }
  ColumnSort<T>::run(keys, n);
}

}  // namespace
