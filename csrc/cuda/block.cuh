// What blocks of threads do in more than one kernel: read tiles of rows, and add up.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/samples.h"
#include "cuda/team.cuh"

namespace mow::cuda {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kDepth = 32;  // coordinates of a tile that are in shared memory at once

template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Pack {
  T v[kCount];
};

// A row of a sample, or none.
template <class T>
struct Line {
  static constexpr int kQuad = 16 / sizeof(T);

  const T* data;
  int64_t stride;

  // Coordinates [start, start + kQuad), zero from dim on.
  __device__ Pack<T, kQuad> quad(int64_t start, int64_t dim) const {
    Pack<T, kQuad> quad{};
    if (data == nullptr) return quad;
    const T* const from = data + start * stride;
    if (stride == 1 && start + kQuad <= dim && reinterpret_cast<uintptr_t>(from) % sizeof quad == 0) {
      return *reinterpret_cast<const Pack<T, kQuad>*>(from);
    }
    for (int i = 0; i < kQuad; ++i) {
      if (start + i < dim) quad.v[i] = from[i * stride];
    }
    return quad;
  }
};

template <class T>
__device__ Line<T> line_of(const Rows<T>& rows, int64_t row) {
  return {rows.data + row * rows.row_stride, rows.column_stride};
}

// Rows one after the other: history and current, or the prior alone.
template <class T>
struct Sequence {
  Past<T> first;
  Rows<T> second;

  __device__ int64_t count() const { return first.count + second.count; }

  __device__ Line<T> line(int64_t row) const {
    if (row < first.count) return line_of(first, first.slot(row));
    row -= first.count;
    return row < second.count ? line_of(second, row) : Line<T>{nullptr, 0};
  }
};

// Of a tile [kDepth, kRows] in shared memory: keeps packs aligned and off each other's banks.
template <class T, int kRows>
constexpr int kTileStride = kRows + 16 / int(sizeof(T));

// Coordinates [start, start + kDepth) of rows [first, first + kRows), zero where there are none.
template <class T, int kRows>
__device__ void load_tile(
    T (&to)[kDepth][kTileStride<T, kRows>], const Sequence<T>& rows, int64_t first, int64_t start, int64_t dim) {
  constexpr int kQuad = Line<T>::kQuad;
  const int row = threadIdx.x % kRows;
  const Line<T> line = rows.line(first + row);
  for (int d = threadIdx.x / kRows * kQuad; d < kDepth; d += kThreads / kRows * kQuad) {
    const auto quad = line.quad(start + d, dim);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) to[d + i][row] = quad.v[i];
  }
}

// The sum of x over the block, for its first thread: a fixed order.
__device__ inline double block_sum(double x, double (&sums)[kWarps]) {
  for (int other = 16; other > 0; other /= 2) x += __shfl_xor_sync(0xffffffff, x, other);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  for (int warp = 1; warp < kWarps && threadIdx.x == 0; ++warp) x += sums[warp];
  return x;
}

// each(i, sum) for numbers i < size from `first` on, up to 32 of them: the sum of number i of `count` arrays, of which each
// begins `apart` numbers after the one before. All warps read at once, each some of the arrays; a fixed order.
template <class Each>
__device__ void sum_arrays(
    const double* arrays, int64_t count, int64_t apart, int64_t first, int64_t size, double (&parts)[kWarps][32],
    const Each& each) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t i = first + lane;
  double sum = 0;
#pragma unroll 8
  for (int64_t array = warp; array < count && i < size; array += kWarps) sum += arrays[array * apart + i];
  __syncthreads();  // nobody reads the parts of before any more
  parts[warp][lane] = sum;
  __syncthreads();
  for (int other = 1; other < kWarps && warp == 0; ++other) sum += parts[other][lane];
  if (warp == 0 && i < size) each(i, sum);
}

// Writes constant + the sum of `total` over the threads of a team, and the sum of its blocks' gradients [size] in shared
// memory (or null): a fixed order.
template <class T>
__device__ void block_results(
    double total, double constant, double* gradient, int64_t size, double (&sums)[kWarps], const Results<T>& results) {
  const int rank = Team::rank(), team = Team::size();
  total = block_sum(total, sums);
  if (threadIdx.x == 0) sums[0] = total;
  Team::sync();
  if (rank == 0 && threadIdx.x == 0 && results.value != nullptr) {
    double value = constant;
    for (int other = 0; other < team; ++other) value += *Team::of(&sums[0], other);
    *results.value = T(value);
  }
  for (int64_t i = rank * kThreads + threadIdx.x; gradient != nullptr && i < size; i += team * kThreads) {
    double sum = 0;
    for (int other = 0; other < team; ++other) sum += *Team::of(gradient + i, other);
    results.g_current[i] = T(sum);
  }
  Team::sync();  // no block leaves while another reads its memory
}

}  // namespace mow::cuda
