// A product of product.cuh on tensor cores, as exact as multiply-adds of float32: studies/cuda/tensor_cores.py has its errors.
//
// Both rows are two float16 limbs (limbs.cuh), of whose four products the least is left out. |x-y|^2 is
// |x|^2 + |y|^2 - 2xy, which loses digits where it is much smaller than its terms: there a warp evaluates its pairs again,
// by differences. So it does where a row is out of range or has what is no number.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/radial_values.h"
#include "cuda/limbs.cuh"
#include "cuda/product.cuh"
#include "cuda/tensor_cores.cuh"

namespace mow::cuda {

// Coordinates that are in shared memory at once, and those whose products the accumulators add up before a float32 takes
// them: an accumulator cuts off and does not round, which pulls one way.
constexpr int kLimbDepth = 64, kRunDepth = 32;

// x, of which the compiler can prepare nothing where it is not known yet that it is wanted.
__device__ inline int64_t only_here(int64_t x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(x));
#endif
  return x;
}

constexpr int kLimbRows = 64;  // of a tile

// The limbs of a tile of rows.
struct LimbTile {
  static constexpr int kBytes = kLimbDepth * 2 * int(sizeof(Half));  // of a row
  static constexpr int kStride = kBytes + 16;                       // keeps the rows of a matrix off each other's banks

  alignas(16) unsigned char rows[kLimbRows][kStride];
  alignas(16) Size sizes[kLimbRows];

  // Groups [first, first + groups) of the rows that begin at `row` in the limbs.
  __device__ void begin(const Limbs& limbs, int64_t row, int64_t first, int groups) {
    static_assert(kThreads == kLimbRows * 4);  // four pieces of 16 bytes are a group
    const int at = threadIdx.x / 4, piece = threadIdx.x % 4;
    const Half* const from = limbs.line(row + at) + first * 2 * kGroup16 + piece * 8;
#pragma unroll 1
    for (int i = 0; i < groups; ++i) begin_copy(&rows[at][i * 64 + piece * 16], from + i * 2 * kGroup16);
    if (threadIdx.x < kLimbRows / 2) begin_copy(&sizes[2 * threadIdx.x], &limbs.sizes[row + 2 * threadIdx.x]);
  }

  // Where a lane finds its row of a matrix: 16 coordinates of a limb, the second eight 16 bytes on.
  __device__ const unsigned char* at(int row, int group, int limb) const { return &rows[row][group * 64 + limb * 32]; }
};

// Evaluates a pair again as PlainProduct does it, out of device memory, and a pair at a time: there are registers for what
// comes often.
template <class Product, bool kOfProducts>
__device__ void evaluate_again(const Visit<float>& visit, int64_t dim, float (&r)[Product::kPairs]) {
  const int64_t top = only_here(visit.first_row + Product::first_row());
  const int64_t left = only_here(visit.first_column + Product::first_column());
  const auto rows = sequence(visit.samples, only_here(visit.of_prior));
  const auto columns = sequence(visit.samples, only_here(visit.columns_of_prior));
#pragma unroll
  for (int i = 0; i < Product::kPairs; ++i) {
    const Line<float> x = rows.line(top + Product::row(i)), y = columns.line(left + Product::column(i));
    r[i] = 0;
#pragma unroll 1
    for (int64_t start = 0; start < dim; start += kDepth) {
      float run = 0;
      const int64_t end = start + kDepth < dim ? start + kDepth : dim;
#pragma unroll 1
      for (int64_t d = start; d < end; d += 4) {
        const auto a = x.quad(d, dim), b = y.quad(d, dim);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float difference = a.v[e] - b.v[e];
          run += kOfProducts ? a.v[e] * b.v[e] : difference * difference;
        }
      }
      r[i] += run;
    }
  }
}

// From the products of the limbs to |x-y|^2, or x.y, of a warp's pairs, all of which are evaluated again if one has to be.
// sizes: of the rows and columns of the tiles.
template <class Product, bool kOfProducts>
__device__ void settle(
    const Visit<float>& visit, int64_t dim, const Size* row_sizes, const Size* column_sizes, float (&r)[Product::kPairs]) {
  const auto sizes = [&](int i) {
    return Pack<Size, 2>{
        row_sizes[Product::first_row() + Product::row(i)], column_sizes[Product::first_column() + Product::column(i)]};
  };
  // Whether they all keep their digits, but for rows with themselves, which count for nothing.
  bool good = true;
#pragma unroll
  for (int i = 0; i < Product::kPairs; ++i) {
    const auto [x, y] = sizes(i).v;
    if constexpr (kOfProducts) {
      r[i] = r[i] * y.v[1] * x.v[1];
      good &= std::fabs(r[i]) <= kLargest<float>;
    } else {
      const float terms = x.v[0] + y.v[0];
      r[i] = terms - r[i] * y.v[1] * (2 * x.v[1]);
      good &= r[i] >= terms * 0.125f;
    }
  }
  const int64_t ahead = visit.first_column - visit.first_row;
  if (!kOfProducts && !good && visit.same() && ahead >= 0 && ahead < Product::kRows) {
    const int own = int(ahead) + Product::first_column() - Product::first_row();
    good = true;
#pragma unroll
    for (int i = 0; i < Product::kPairs; ++i) {
      const auto [x, y] = sizes(i).v;
      good &= r[i] >= (x.v[0] + y.v[0]) * 0.125f || Product::row(i) == Product::column(i) + own;
    }
  }
  if (__any_sync(0xffffffff, !good)) evaluate_again<Product, kOfProducts>(visit, dim, r);
}

// A warp has 32 rows and 16 columns: four instructions for each product of limbs.
template <bool kOfProducts>
struct TensorProduct {
  static constexpr int kRows = kLimbRows, kColumns = kRows, kPairs = 16, kRun = 2;
  static constexpr bool kLeavesLast = false;

  struct Shared : Tile<float, kRows> {
    LimbTile row_limbs, column_limbs;
  };

  Limbs limbs;
  bool resident = false;  // whether the limbs of the rows are all in shared memory

  __device__ static int first_row() { return threadIdx.x / 128 * 32 + threadIdx.x % 32 / 4; }
  __device__ static int first_column() { return threadIdx.x / 32 % 4 * 16 + threadIdx.x % 4 * 2; }
  MOW_HD static constexpr int row(int i) { return i / 4 * 8; }
  MOW_HD static constexpr int column(int i) { return i % 4 / 2 * 8 + i % 2; }

  __device__ void begin(const Visits<float>& visits, Shared& shared) { begin(visits[0], shared, 0); }

  __device__ void operator()(
      const Visits<float>& visits, int64_t which, int64_t dim, Shared& shared, float (&r)[kPairs]) {
    for (int i = 0; i < kPairs; ++i) r[i] = 0;
    for (int64_t first = 0; first < limbs.groups; first += kLimbGroups) {
      if (first > 0) begin(visits[which], shared, first);
      finish_copies();
      __syncthreads();
      add_products(shared, groups_from(first), r);
      if (first + kLimbGroups < limbs.groups) __syncthreads();
    }
    settle<TensorProduct, kOfProducts>(visits[which], dim, shared.row_limbs.sizes, shared.column_limbs.sizes, r);
    __syncthreads();  // the limbs have been read
    if (which + 1 < visits.count) begin(visits[which + 1], shared, 0);
  }

 private:
  static constexpr int kLimbGroups = kLimbDepth / kGroup16, kRunGroups = kRunDepth / kGroup16;

  __device__ int groups_from(int64_t first) const {
    return int(limbs.groups - first < kLimbGroups ? limbs.groups - first : kLimbGroups);
  }

  // Begins to load what a visit has from a group on, when no thread reads what was there before.
  __device__ void begin(const Visit<float>& visit, Shared& shared, int64_t first) {
    const int groups = groups_from(first);
    if (!resident) shared.row_limbs.begin(limbs, limbs.place(visit.of_prior, visit.first_row), first, groups);
    resident = limbs.groups <= kLimbGroups;
    shared.column_limbs.begin(limbs, limbs.place(visit.columns_of_prior, visit.first_column), first, groups);
  }

  __device__ static void add_products(const Shared& shared, int groups, float (&r)[kPairs]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp / 4 * 32 + lane % 16, row_half = lane / 16 * 16;
    const int column = warp % 4 * 16 + lane / 16 * 8 + lane % 8, column_half = lane / 8 % 2 * 16;
    for (int start = 0; start < groups; start += kRunGroups) {
      float high[4][4] = {}, low[4][4] = {};  // 16 rows and 8 columns each
#pragma unroll
      for (int next = 0; next < kRunGroups; ++next) {
        const int group = start + next;
        if (group >= groups) break;
        unsigned y[2][4];
        load_matrices(y[0], shared.column_limbs.at(column, group, 0) + column_half);
        load_matrices(y[1], shared.column_limbs.at(column, group, 1) + column_half);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          unsigned x[2][4];
          load_matrices(x[0], shared.row_limbs.at(row + 16 * i, group, 0) + row_half);
          load_matrices(x[1], shared.row_limbs.at(row + 16 * i, group, 1) + row_half);
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            multiply_add(high[2 * i + j], x[0], y[0][2 * j], y[0][2 * j + 1]);
            multiply_add(low[2 * i + j], x[1], y[0][2 * j], y[0][2 * j + 1]);
            multiply_add(low[2 * i + j], x[0], y[1][2 * j], y[1][2 * j + 1]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int which = i / 8 * 2 + i % 4 / 2, element = i / 4 % 2 * 2 + i % 2;
        r[i] += high[which][element] + low[which][element] * (1 / kLow);
      }
    }
  }
};

}  // namespace mow::cuda
