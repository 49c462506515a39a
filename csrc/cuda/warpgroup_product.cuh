// The product of tensor_product.cuh by the instructions of sm_90a: two warpgroups with 64 rows each, whose factors are read out
// of shared memory. The limbs of the rows stay there, as far as there is room; those of the columns go through slots.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/limbs.cuh"
#include "cuda/product.cuh"
#include "cuda/tensor_product.cuh"
#include "cuda/warpgroups.cuh"

namespace mow::cuda {

template <bool kOfProducts>
struct WarpgroupProduct {
  static constexpr int kRows = 2 * kSlabRows, kColumns = kSlabRows, kPairs = 32, kRun = 2;
  static constexpr bool kLeavesLast = false;

  // A slot has a slab of the columns, whose visits follow each other through the slots; and one of the rows of either
  // warpgroup where these are more than can stay.
  static constexpr int kSlots = 4, kMostResident = 8;

  struct Shared : Tile<float, kRows, kColumns> {
    alignas(16) Size row_sizes[kRows];
    alignas(16) Size column_sizes[kSlots][kColumns];
  };

  struct Pipeline {
    Arrivals rows, slots[kSlots];
    unsigned readers[kSlots];  // warps that have done with what a slot holds
  };

  // What a block takes: `Shared`, and then the slabs where they may begin.
  static constexpr int64_t shared_bytes(int64_t slabs) {
    const int64_t count = slabs <= kMostResident ? 2 * slabs + kSlots : 3 * kSlots;
    return int64_t(sizeof(Shared)) + kSlabAlignment + count * kSlabBytes;
  }

  Limbs limbs;
  Pipeline& pipeline;
  unsigned char* memory;  // of the slabs
  unsigned number = 0;    // of the slab of columns that comes next; no memory has 2^32 of them

#if MOW_WARPGROUPS
  __device__ WarpgroupProduct(const Limbs& limbs, Pipeline& pipeline, unsigned char* shared)
      : limbs(limbs), pipeline(pipeline), memory(shared + sizeof(Shared)) {
    memory += (kSlabAlignment - shared_address(memory) % kSlabAlignment) % kSlabAlignment;
  }

  __device__ static int first_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }
  __device__ static int first_column() { return threadIdx.x % 4 * 2; }
  MOW_HD static constexpr int row(int i) { return i / 2 % 2 * 8; }
  MOW_HD static constexpr int column(int i) { return i / 4 * 8 + i % 2; }

  // Once a block.
  __device__ void begin(const Visits<float>& visits, Shared& shared) {
    if (threadIdx.x == 0) {
      begin_arrivals(&pipeline.rows);
      for (int i = 0; i < kSlots; ++i) begin_arrivals(&pipeline.slots[i]), pipeline.readers[i] = 0;
      finish_beginning();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const Visit<float> visit = visits[0];
      const int64_t row = limbs.place(visit.of_prior, visit.first_row);
      expect(&pipeline.rows, unsigned(sizeof shared.row_sizes) + (resident() ? 2 * slabs() * kSlabBytes : 0));
      begin_bulk_copy(shared.row_sizes, limbs.sizes + row, sizeof shared.row_sizes, &pipeline.rows);
#pragma unroll 1
      for (int half = 0; half < 2 && resident(); ++half) {
        begin_bulk_copy(
            memory + half * slabs() * kSlabBytes, limbs.slab(row + half * kSlabRows, 0), slabs() * kSlabBytes,
            &pipeline.rows);
      }
#pragma unroll 1
      for (int i = 0; i < kSlots; ++i) fill(visits, shared, i);
    }
    __syncwarp();  // its other lanes do not wait for copies that it has yet to begin
  }

  __device__ void operator()(
      const Visits<float>& visits, int64_t which, int64_t dim, Shared& shared, float (&r)[kPairs]) {
    const Visit<float> visit = visits[which];
    if (which == 0) wait(&pipeline.rows, 0);
    if (which > 0 && visit.slopes) __syncthreads();  // those of the visit before have been read
    for (int i = 0; i < kPairs; ++i) r[i] = 0;
#pragma unroll 1
    for (unsigned slab = 0; slab < slabs(); ++slab, ++number) {
      if (slab > 0) release(visits, shared, number - 1);
      wait(&pipeline.slots[number % kSlots], number / kSlots % 2);
      add_products(slab, r);
    }
    settle<WarpgroupProduct, kOfProducts>(visit, dim, shared.row_sizes, shared.column_sizes[(number - 1) % kSlots], r);
    release(visits, shared, number - 1);
  }

 private:
  __device__ unsigned slabs() const { return unsigned(limbs.groups / 2); }
  __device__ bool resident() const { return slabs() <= kMostResident; }

  __device__ unsigned char* slot(unsigned number) const {
    const unsigned at = number % kSlots;
    return memory + (resident() ? 2 * slabs() + at : 3 * at) * kSlabBytes;
  }

  // Begins to load the slab of that number, if there is one, by one thread, when no warp reads what its slot has.
  __device__ void fill(const Visits<float>& visits, Shared& shared, unsigned number) const {
    const unsigned which = number / slabs(), slab = number % slabs(), at = number % kSlots;
    if (which >= visits.count) return;
    const Visit<float> visit = visits[which];
    Arrivals* const arrivals = &pipeline.slots[at];
    const int64_t column = limbs.place(visit.columns_of_prior, visit.first_column);
    const bool is_last_of_visit = slab + 1 == slabs();
    constexpr unsigned kSizes = sizeof shared.column_sizes[0];
    expect(arrivals, (resident() ? 1 : 3) * kSlabBytes + (is_last_of_visit ? kSizes : 0));
    begin_bulk_copy(slot(number), limbs.slab(column, slab), kSlabBytes, arrivals);
    if (is_last_of_visit) begin_bulk_copy(shared.column_sizes[at], limbs.sizes + column, kSizes, arrivals);
    if (resident()) return;
    const int64_t row = limbs.place(visit.of_prior, visit.first_row);
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      begin_bulk_copy(
          slot(number) + (1 + half) * kSlabBytes, limbs.slab(row + half * kSlabRows, slab), kSlabBytes, arrivals);
    }
  }

  // The warp has read what the slot of a slab holds. The last to say so fills it again, which takes no warp that does nothing
  // else and nobody who waits for the others.
  __device__ void release(const Visits<float>& visits, Shared& shared, unsigned number) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0 && is_last(&pipeline.readers[number % kSlots], kWarps)) fill(visits, shared, number + kSlots);
    __syncwarp();
  }

  // Of a row of a slab: its 32 coordinates' high limbs, then their low ones.
  __device__ void add_products(unsigned slab, float (&r)[kPairs]) const {
    const int half = threadIdx.x / 128;
    const unsigned char* const columns = slot(number);
    const unsigned char* const rows =
        resident() ? memory + (half * slabs() + slab) * kSlabBytes : columns + (1 + half) * kSlabBytes;
    uint64_t x[2][2], y[2][2];
    for (int limb = 0; limb < 2; ++limb) {
      for (int group = 0; group < 2; ++group) {
        x[limb][group] = descriptor(rows, limb * 64 + group * 32);
        y[limb][group] = descriptor(columns, limb * 64 + group * 32);
      }
    }
    float high[kPairs], low[kPairs];  // which the first product of each writes
    begin_products();
    begin_multiply<false>(high, x[0][0], y[0][0]);
    begin_multiply<false>(low, x[1][0], y[0][0]);
    begin_multiply<true>(low, x[0][0], y[1][0]);
    begin_multiply<true>(high, x[0][1], y[0][1]);
    begin_multiply<true>(low, x[1][1], y[0][1]);
    begin_multiply<true>(low, x[0][1], y[1][1]);
    finish_products(high, low);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) r[i] += high[i] + low[i] * (1 / kLow);
  }
#endif
};

}  // namespace mow::cuda
