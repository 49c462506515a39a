// Rows packed for the kernels of csrc/cpu/pairwise_kernels.h, in memory of their own.
#pragma once

#include <algorithm>

#include "common/rows.h"
#include "cpu/buffer.h"
#include "cpu/pairwise_kernels.h"
#include "cpu/parallel.h"

namespace mow::cpu {

// Rows of a task, the unit of work that one thread takes; a multiple of the rows of every register tile.
constexpr int64_t kBand = 64;

// Multiply-adds below which no other thread is woken: some 50 microseconds' worth.
constexpr double kSerialWork = 1 << 22;

// Numbers below which no other thread is woken to pack them.
constexpr double kSerialNumbers = 1 << 18;

inline int64_t bands(int64_t rows) { return (rows + kBand - 1) / kBand; }

template <class T>
const Kernels<T>& kernels();
template <>
inline const Kernels<float>& kernels() { return MOW_BEST_ISA(float_kernels); }
template <>
inline const Kernels<double>& kernels() { return MOW_BEST_ISA(double_kernels); }

template <class T>
struct PackedRows : Panel<T> {
  Buffer<T> memory;

  PackedRows(const Rows<T>& rows, int64_t dim) {
    const int64_t tile = kernels<T>().tile, padded = (rows.count + tile - 1) / tile * tile;
    memory = allocate<T>(padded * dim + padded + kBand);  // the last tile of rows may look at norms beyond the padding
    T *data = memory.get(), *norms = data + padded * dim;
    std::fill_n(norms + padded, kBand, T(0));
    run_tasks(bands(rows.count), double(rows.count) * double(dim) > kSerialNumbers, [&](int64_t band) {
      const int64_t first = band * kBand;
      kernels<T>().pack(
          rows.data + first * rows.row_stride, std::min(kBand, rows.count - first), rows.row_stride, rows.column_stride, dim,
          data + first * dim, norms + first);
    }, nullptr);
    Panel<T>::data = data, Panel<T>::norms = norms, Panel<T>::rows = rows.count;
  }
};

}  // namespace mow::cpu
