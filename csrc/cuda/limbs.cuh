// Rows as tensor cores take them: two float16 limbs, x - centre = (high + low / 2^11) / scale, which hold 22 bits and more.
//
// A row has a power of two of its own as its scale, so that no range of float32 is out of theirs and no row spoils another.
// The centre, the mean of some rows of the window, makes |x|^2 + |y|^2 no larger than it has to be beside |x-y|^2; a
// function of products has none.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/block.cuh"
#include "cuda/tensor_cores.cuh"
#include "cuda/warpgroups.cuh"

namespace mow::cuda {

constexpr int kGroup16 = 16;   // coordinates that an instruction takes: their high limbs, then their low ones
constexpr float kLow = 2048;   // that the low limb is multiplied by, so that it has the range of the high one

// Of a row: |x - centre|^2, and 1 / scale.
using Size = Pack<float, 2>;

// Where the limbs are, by what reads them: a warp, which takes single rows, or a warpgroup, which takes slabs (warpgroups.cuh)
// of 32 coordinates of 64 rows.
enum class Reader { kWarp, kWarpgroup };

// The limbs of a window and a prior in device memory. A sample fills a multiple of `padding` rows: its own, then zeros.
struct Limbs {
  const Half* data;     // [rows, groups, 2, 16], or [rows / 64, groups / 2, 64, 2, 32] swizzled
  const Size* sizes;    // [rows]
  const float* centre;  // [groups * 16]
  int64_t groups;
  int64_t window, rows;  // up to the prior's, and in all
  Reader reader;

  static Limbs in(void* memory, int64_t window, int64_t prior, int64_t dim, Reader reader) {
    const int64_t before = padded(window, reader), rows = before + padded(prior, reader);
    const int64_t groups = groups_of(dim, reader);
    Half* const data = static_cast<Half*>(memory);
    Size* const sizes = reinterpret_cast<Size*>(data + rows * groups * 2 * kGroup16);
    return {data, sizes, reinterpret_cast<float*>(sizes + rows), groups, before, rows, reader};
  }

  // Of the memory, which is aligned to 16.
  static int64_t bytes(int64_t window, int64_t prior, int64_t dim, Reader reader) {
    const int64_t rows = padded(window, reader) + padded(prior, reader), width = groups_of(dim, reader) * kGroup16;
    return rows * (width * 2 * int64_t(sizeof(Half)) + int64_t(sizeof(Size))) + width * int64_t(sizeof(float));
  }

  static int64_t groups_of(int64_t dim, Reader reader) {
    const int64_t groups = (dim + kGroup16 - 1) / kGroup16;
    return reader == Reader::kWarp ? groups : (groups + 1) / 2 * 2;
  }

  // The row of a sample among all.
  __device__ int64_t place(bool prior, int64_t row) const { return prior ? window + row : row; }

  // For a warp: a row, and for a warpgroup: a slab of the rows from `row` on.
  __device__ const Half* line(int64_t row) const { return data + row * groups * 2 * kGroup16; }
  __device__ const Half* slab(int64_t row, int64_t slab) const {
    return data + (row / kSlabRows * (groups / 2) + slab) * (kSlabBytes / int(sizeof(Half)));
  }

  // One limb of a coordinate, 0 the high one.
  __device__ const Half* at(int64_t row, int64_t d, int limb) const {
    if (reader == Reader::kWarp) return line(row) + d / kGroup16 * 2 * kGroup16 + limb * kGroup16 + d % kGroup16;
    return slab(row, d / 32) + slab_offset(int(row % kSlabRows), limb * 64 + int(d % 32) * int(sizeof(Half))) / int(sizeof(Half));
  }

 private:
  static int64_t padded(int64_t rows, Reader reader) {
    const int64_t padding = reader == Reader::kWarp ? 64 : 2 * kSlabRows;
    return (rows + padding - 1) / padding * padding;
  }
};

// Enqueues what fills them; with a centre of zero if not `centred`.
cudaError_t split(const Samples<float>& samples, bool centred, const Limbs& limbs, cudaStream_t stream);

}  // namespace mow::cuda
