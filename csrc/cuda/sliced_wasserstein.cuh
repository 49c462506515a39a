// What the sliced-Wasserstein distance and its sorted projections have in common: to project, to sort, and to add up.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "common/ranking.h"
#include "cuda/block.cuh"
#include "cuda/sliced_wasserstein.h"
#include "cuda/team.cuh"

namespace mow::cuda {

constexpr int kSortThreads = 1024;
template <class T>
constexpr int kRun = (32 << 10) / int(sizeof(Entry<T>));  // entries that a block sorts in shared memory

constexpr int kTileRows = 64;  // rows, and directions, of a block that projects

// Sorts each of the runs of `size` entries, a power of two, in shared memory. The blocks' threads must have written them.
template <class T>
__device__ void sort_runs(Entry<T>* entries, int size, int total, int threads) {
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < total / 2; i += threads) {
        const int low = 2 * i - (i & (step - 1)), high = low + step;
        const bool descending = run < size && (low & run) != 0;
        const Entry<T> a = entries[low], b = entries[high];
        if ((b < a) != descending) entries[low] = b, entries[high] = a;
      }
    }
  }
  __syncthreads();
}

// The projections of a tile of 64 rows, blockIdx.x, on 64 directions, blockIdx.y: each(row, direction, their number) for those
// of a thread, also beyond the last; 16 neighbouring threads have the same directions.
template <class T, class Each>
__device__ void project_tile(const Sequence<T>& rows, const Sequence<T>& directions, int64_t dim, const Each& each) {
  constexpr int P = kTileRows / 16;
  alignas(16) __shared__ T row_tile[kDepth][kTileStride<T, kTileRows>];
  alignas(16) __shared__ T direction_tile[kDepth][kTileStride<T, kTileRows>];
  const int64_t first_row = int64_t(blockIdx.x) * kTileRows, first_direction = int64_t(blockIdx.y) * kTileRows;
  const int row = threadIdx.x % 16 * P, direction = threadIdx.x / 16 * P;
  T sum[P][P] = {};
  for (int64_t start = 0; start < dim; start += kDepth) {
    __syncthreads();
    load_tile<T, kTileRows>(row_tile, rows, first_row, start, dim);
    load_tile<T, kTileRows>(direction_tile, directions, first_direction, start, dim);
    __syncthreads();
    T run[P][P] = {};
    const int depth = int(dim - start < kDepth ? dim - start : kDepth);
#pragma unroll 4
    for (int d = 0; d < depth; ++d) {
#pragma unroll
      for (int i = 0; i < P; ++i) {
#pragma unroll
        for (int j = 0; j < P; ++j) run[i][j] += direction_tile[d][direction + i] * row_tile[d][row + j];
      }
    }
#pragma unroll
    for (int i = 0; i < P; ++i) {
#pragma unroll
      for (int j = 0; j < P; ++j) sum[i][j] += run[i][j];
    }
  }
#pragma unroll
  for (int i = 0; i < P; ++i) each(first_row + row, first_direction + direction + i, sum[i]);
}

// Entries in a word that says the direction, too, so that those of several directions are sorted at once: by its bits from
// kRowBits on, since rows are in order before.
template <class T>
struct Packed {
  static constexpr int kRowBits = 24, kKeyBits = 32;
  static constexpr int64_t kMostRows = int64_t(1) << kRowBits, kMostDirections = int64_t(1) << (64 - kRowBits - kKeyBits);
  static constexpr bool kFits = sizeof(T) == 4;

  MOW_HD static Entry<T> of(uint64_t direction, const Entry<T>& entry) {
    if constexpr (kFits) return {direction << (kRowBits + kKeyBits) | uint64_t(entry.order()) << kRowBits | entry.row()};
    return entry;
  }

  MOW_HD static Entry<T> entry(const Entry<T>& packed) {
    if constexpr (kFits) {
      return {uint64_t(uint32_t(packed.bits >> kRowBits)) << 32 | (packed.bits & uint64_t(kMostRows - 1))};
    }
    return packed;
  }
};

// entries [directions, rows], whose rows are numbered from `number` on; zeroes as many ranks, if there are any.
template <class T>
__global__ void __launch_bounds__(kThreads) project(
    Sequence<T> rows, Sequence<T> directions, int64_t dim, int64_t number, Entry<T>* entries, unsigned* ranks,
    bool packed) {
  const int64_t count = rows.count();
  project_tile(rows, directions, dim, [&](int64_t row, int64_t direction, const auto& sums) {
    for (const T sum : sums) {
      if (row < count && direction < directions.count()) {
        const Entry<T> entry = Entry<T>::of(sum, uint32_t(number + row));
        entries[direction * count + row] = packed ? Packed<T>::of(uint64_t(direction), entry) : entry;
        if (ranks != nullptr) ranks[direction * count + row] = 0;
      }
      ++row;
    }
  });
}

// Sorts run blockIdx.x of direction blockIdx.y in place. Shared memory: `size` entries, a power of two.
template <class T>
__global__ void __launch_bounds__(kSortThreads) sort_tiles(Entry<T>* entries, int64_t count, int size) {
  auto* const run = reinterpret_cast<Entry<T>*>(dynamic_shared());
  entries += blockIdx.y * count;
  const int64_t first = int64_t(blockIdx.x) * size;
  for (int i = threadIdx.x; i < size; i += kSortThreads) run[i] = first + i < count ? entries[first + i] : Entry<T>::last();
  sort_runs(run, size, size, kSortThreads);
  for (int i = threadIdx.x; i < size && first + i < count; i += kSortThreads) entries[first + i] = run[i];
}

// Merges pairs of neighbouring runs of `width` entries of direction blockIdx.y.
template <class T>
__global__ void __launch_bounds__(kThreads) merge_runs(
    const Entry<T>* from, Entry<T>* to, int64_t count, int64_t width) {
  from += blockIdx.y * count, to += blockIdx.y * count;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t run = i / width, pair = run / 2 * 2 * width;
  const int64_t other = run % 2 == 0 ? pair + width : pair, left = count - other;
  const int64_t size = left < 0 ? 0 : left < width ? left : width;
  to[pair + (i - run * width) + count_below(from + other, size, from[i])] = from[i];
}

// g_current [k, D], set or added to: slopes [directions, k] times the directions.
template <class T>
__global__ void __launch_bounds__(kThreads) spread(
    const __grid_constant__ Sliced<T> p, const T* slopes, int64_t first, int64_t here) {
  const int64_t k = p.samples.current.count, dim = p.samples.dim;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= k * dim) return;
  const int64_t row = i / dim, d = i % dim;
  double sum = first > 0 ? double(p.results.g_current[i]) : 0;
  for (int64_t direction = 0; direction < here; ++direction) {
    const Line<T> theta = line_of(p.directions, first + direction);
    sum += double(slopes[direction * k + row]) * double(theta.data[d * theta.stride]);
  }
  p.results.g_current[i] = T(sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads) sliced_finish(
    const double* totals, int64_t count, const double* bins, Results<T> results) {
  __shared__ double sums[kWarps];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += totals[i];
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) *results.value = T(sum + (bins ? bins[0] : 0));
}

inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t power_of_two_from(int64_t count) {
  int64_t size = 2;
  while (size < count) size *= 2;
  return size;
}

inline dim3 project_blocks(int64_t rows, int64_t directions) {
  return dim3(unsigned(ceil_divide(rows, kTileRows)), unsigned(ceil_divide(directions, kTileRows)));
}

// Sorts `here` runs of `count` entries; the result is in `entries` then, which may have been exchanged with `spare`.
template <class T>
cudaError_t sort_entries(Entry<T>*& entries, Entry<T>*& spare, int64_t count, int64_t here, cudaStream_t stream) {
  if (count <= 1) return cudaSuccess;
  const int64_t size = std::min<int64_t>(kRun<T>, power_of_two_from(count));
  const dim3 runs(unsigned(ceil_divide(count, size)), unsigned(here));
  auto failed = launch(
      sort_tiles<T>, runs, kSortThreads, size * int64_t(sizeof(Entry<T>)), 1, stream, entries, count, int(size));
  const dim3 blocks(unsigned(ceil_divide(count, kThreads)), unsigned(here));
  for (int64_t width = size; width < count && failed == cudaSuccess; width *= 2) {
    failed = launch(
        merge_runs<T>, blocks, kThreads, 0, 1, stream, static_cast<const Entry<T>*>(entries), spare, count, width);
    std::swap(entries, spare);
  }
  return failed;
}

}  // namespace mow::cuda
