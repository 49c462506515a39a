// Sums of a function over pairs of rows, and their gradients: what one instruction set's unit offers.
#pragma once

#include <cstdint>

#include "common/radial.h"
#include "cpu/isa.h"

namespace mow::cpu {

// Rows [rows, dim] in tiles of Kernels::tile rows, as many as a vector has lanes, each transposed to [dim, tile] and the
// last one filled with zeros: a vector holds one coordinate of neighbouring rows.
template <class T>
struct Panel {
  const T* data;
  const T* norms;  // |row|^2, up to the end of the last register tile
  int64_t rows;
};

enum class Pairs {
  kAll,     // every row with every column
  kBelow,   // each unordered pair of a sample once: columns before the row
  kUpTo,    // and the column of the row's own number
  kOthers,  // a sample with itself, but no row with itself
};

template <class T>
struct Visit {
  const Radial<T>* radial;
  int64_t dim;
  Panel<T> rows;
  int64_t first, last;  // the rows to visit; first is a multiple of 64
  Panel<T> columns;
  int64_t first_column, last_column;
  Pairs pairs;
  double* gradient;  // [last - first, dim], or null
  double weight;     // gradient += weight * d sum / d row
  T* scratch;        // Kernels::scratch numbers where there is a gradient
  // Null, or a sum for each column to which its f with each row is added, row by row. What a pair adds then depends on its
  // two rows alone: not on its neighbours, nor on which of them is the column.
  double* column_sums;
};

template <class T>
struct Kernels {
  int64_t tile;
  int64_t scratch;
  // rows [count, dim] with strides -> a panel of ceil(count / tile) * tile * dim numbers, aligned to 64 bytes, and norms.
  void (*pack)(
      const T* rows, int64_t count, int64_t row_stride, int64_t column_stride, int64_t dim, T* panel, T* norms);
  // The sum of f(|row - column|^2), or of f(row . column), over the pairs.
  double (*visit)(const Visit<T>&);
  // The sum of f(|row|^2) over the rows, and to column_sums [last - first] f(|row|^2) itself; radial, columns, pairs and
  // scratch are not read.
  double (*visit_origin)(const Visit<T>&, const Radial<double>& f);
};

#define MOW_DECLARE(isa)                       \
  namespace isa {                              \
  extern const Kernels<float> float_kernels;   \
  extern const Kernels<double> double_kernels; \
  }
MOW_FOR_EACH_ISA(MOW_DECLARE)
#undef MOW_DECLARE

}  // namespace mow::cpu
