// A matrix in memory, as the backends take samples.
#pragma once

#include <cstdint>

namespace mow {

// [count, D], which may be a strided view.
template <class T>
struct Rows {
  const T* data = nullptr;
  int64_t count = 0, row_stride = 0, column_stride = 0;
};

}  // namespace mow
