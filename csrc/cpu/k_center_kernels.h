// A round of greedy k-centre over a range of rows: what one instruction set's unit offers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/isa.h"

namespace mow::cpu {

// A number of a centre or a tile, as wide as T.
template <class T>
using Number = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

// The rows of a sample, packed as by PackedRows of cpu/packed_rows.h.
template <class T>
struct Cover {
  const T* panel;
  int64_t dim;
  T* nearest;        // squared distance of each row to its centre; -1 for centres and for what fills the last tile up
  Number<T>* owner;  // the centre, by its place in the selection
};

struct Farthest {
  double distance = -1;  // squared; -1 where there is no row that is no centre
  int64_t row = 0;
};

template <class T>
struct CenterKernels {
  // Gives the rows of tiles [first, last) that are nearer to `center` [dim] than to any before it to centre `taken`. Returns
  // the farthest row, the lowest of equally far ones.
  Farthest (*visit)(const Cover<T>&, int64_t first, int64_t last, const T* center, Number<T> taken);
};

#define MOW_DECLARE(isa)                                  \
  namespace isa {                                         \
  extern const CenterKernels<float> float_center_kernels; \
  extern const CenterKernels<double> double_center_kernels; \
  }
MOW_FOR_EACH_ISA(MOW_DECLARE)
#undef MOW_DECLARE

}  // namespace mow::cpu
