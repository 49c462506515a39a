// A ring of rows whose head is in device memory, past torch.
#pragma once

#include "cuda/samples.h"

namespace mow::cuda {

// `size` slots [size, D], which may be strided, and the slot that is written next.
template <class T>
struct Ring {
  T* data;
  int64_t size, dim, row_stride, column_stride;
  int64_t* head;
};

// The newest `count` <= size rows, oldest first, to `to` [count, D], contiguous.
template <class T>
cudaError_t ring_newest(const Ring<T>& ring, int64_t count, T* to, cudaStream_t stream);

// Writes at most `size` rows, and moves the head.
template <class T>
cudaError_t ring_push(const Ring<T>& ring, const Rows<T>& rows, cudaStream_t stream);

}  // namespace mow::cuda
