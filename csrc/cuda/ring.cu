#include "cuda/ring.h"

#include <algorithm>

#include "cuda/block.cuh"

namespace mow::cuda {
namespace {

constexpr int64_t kOneBlock = 16 * kThreads;  // numbers that one block writes sooner than a second launch begins

template <class T>
__device__ T& number(const Ring<T>& ring, int64_t slot, int64_t d) {
  return ring.data[slot % ring.size * ring.row_stride + d * ring.column_stride];
}

template <class T>
__global__ void __launch_bounds__(kThreads) copy_newest(const __grid_constant__ Ring<T> ring, int64_t count, T* to) {
  const int64_t first = *ring.head - count + ring.size;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count * ring.dim; i += int64_t(gridDim.x) * kThreads) {
    to[i] = number(ring, first + i / ring.dim, i % ring.dim);
  }
}

// `moves`: of a lone block, which moves the head as well.
template <class T>
__global__ void __launch_bounds__(kThreads)
    write_rows(const __grid_constant__ Ring<T> ring, const __grid_constant__ Rows<T> rows, bool moves) {
  const int64_t head = *ring.head;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < rows.count * ring.dim;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = i / ring.dim, d = i % ring.dim;
    number(ring, head + row, d) = rows.data[row * rows.row_stride + d * rows.column_stride];
  }
  if (!moves) return;
  __syncthreads();  // all threads have read the head
  if (threadIdx.x == 0) *ring.head = (head + rows.count) % ring.size;
}

template <class T>
__global__ void move_head(const __grid_constant__ Ring<T> ring, int64_t by) {
  if (threadIdx.x == 0) *ring.head = (*ring.head + by) % ring.size;
}

dim3 blocks(int64_t numbers) { return unsigned(std::clamp<int64_t>((numbers + kThreads - 1) / kThreads, 1, 1024)); }

}  // namespace

template <class T>
cudaError_t ring_newest(const Ring<T>& ring, int64_t count, T* to, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return launch(copy_newest<T>, blocks(count * ring.dim), kThreads, 0, 1, stream, ring, count, to);
}

template <class T>
cudaError_t ring_push(const Ring<T>& ring, const Rows<T>& rows, cudaStream_t stream) {
  const int64_t numbers = rows.count * ring.dim;
  const bool one = numbers <= kOneBlock;
  const cudaError_t failed = launch(write_rows<T>, one ? dim3(1) : blocks(numbers), kThreads, 0, 1, stream, ring, rows, one);
  return one || failed != cudaSuccess ? failed : launch(move_head<T>, 1, 32, 0, 1, stream, ring, rows.count);
}

template cudaError_t ring_newest(const Ring<float>&, int64_t, float*, cudaStream_t);
template cudaError_t ring_newest(const Ring<double>&, int64_t, double*, cudaStream_t);
template cudaError_t ring_push(const Ring<float>&, const Rows<float>&, cudaStream_t);
template cudaError_t ring_push(const Ring<double>&, const Rows<double>&, cudaStream_t);

}  // namespace mow::cuda
