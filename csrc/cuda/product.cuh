// What a visit takes of its pairs of rows, |x-y|^2 or x.y: each way to have it is a class of its own, a `Product`.
//
// A product says how the pairs of a tile are dealt out to the threads, and what shared memory it wants of its own:
//
//   kRows, kColumns  rows of a tile, and of one of columns
//   kPairs           pairs of a thread: i lies at first_row() + row(i), first_column() + column(i) of the tiles
//   kRun             neighbouring columns that neighbouring pairs have: i, i + 1, ...
//   kLeavesLast      whether the last coordinates are in `shared.rows` and `shared.columns` afterwards
//   Shared           the tile below, and what else the product keeps in shared memory
//   begin            starts to load what the first of some visits begins with
//   operator()       r[i] of all pairs of one of them, in turn, with barriers around what is shared; starts to load what the
//                    next one begins with
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/block.cuh"
#include "cuda/tiling.cuh"

namespace mow::cuda {

// Shared memory of a visit: kDepth coordinates of a tile of rows and of one of columns, and the slopes of the pairs.
template <class T, int kTileRows, int kTileColumns = kTileRows>
struct Tile {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns;

  alignas(16) T rows[kDepth][kTileStride<T, kRows>];
  alignas(16) T columns[kDepth][kTileStride<T, kColumns>];
  alignas(16) T slopes[kRows][kTileStride<T, kColumns>];
  double sums[kWarps];

  // Coordinates [start, start + kDepth), when no thread reads the ones before any more.
  __device__ void load(const Visit<T>& visit, int64_t start, int64_t dim) {
    __syncthreads();
    load_tile<T, kRows>(rows, visit.rows(), visit.first_row, start, dim);
    load_tile<T, kColumns>(columns, visit.columns(), visit.first_column, start, dim);
    __syncthreads();
  }
};

// By multiply-adds of T, P x P pairs a thread. Distances are direct differences, not |x|^2 + |y|^2 - 2xy: exact for
// coinciding rows of any magnitude, at no more multiply-adds.
template <class T, bool kOfProducts, int P>
struct PlainProduct {
  static constexpr int kRows = 16 * P, kColumns = kRows, kPairs = P * P, kRun = P;
  static constexpr bool kLeavesLast = true;

  using Shared = Tile<T, kRows>;

  __device__ static int first_row() { return threadIdx.x / 16 * P; }
  __device__ static int first_column() { return threadIdx.x % 16 * P; }
  MOW_HD static constexpr int row(int i) { return i / P; }
  MOW_HD static constexpr int column(int i) { return i % P; }

  __device__ void begin(const Visits<T>&, Shared&) const {}

  __device__ void operator()(const Visits<T>& visits, int64_t which, int64_t dim, Shared& shared, T (&r)[kPairs]) const {
    const Visit<T> visit = visits[which];
    const int row = first_row(), column = first_column();
    for (int i = 0; i < kPairs; ++i) r[i] = 0;
    for (int64_t start = 0; start < dim; start += kDepth) {
      shared.load(visit, start, dim);
      T run[kPairs] = {};
      const int depth = int(dim - start < kDepth ? dim - start : kDepth);
#pragma unroll 4
      for (int d = 0; d < depth; ++d) {
        const auto a = *reinterpret_cast<const Pack<T, P>*>(&shared.rows[d][row]);
        const auto b = *reinterpret_cast<const Pack<T, P>*>(&shared.columns[d][column]);
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          if constexpr (kOfProducts) {
            run[i] += a.v[i / P] * b.v[i % P];
          } else {
            const T difference = a.v[i / P] - b.v[i % P];
            run[i] += difference * difference;
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kPairs; ++i) r[i] += run[i];
    }
  }
};

}  // namespace mow::cuda
