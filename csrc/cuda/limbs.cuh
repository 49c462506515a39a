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

namespace mow::cuda {

constexpr int kGroup16 = 16;   // coordinates that an instruction takes: their high limbs, then their low ones
constexpr float kLow = 2048;   // that the low limb is multiplied by, so that it has the range of the high one
constexpr int kLimbRows = 64;  // a sample fills a multiple of it: its rows, then zeros

// Of a row: |x - centre|^2, and 1 / scale.
using Size = Pack<float, 2>;

// The limbs of a window and a prior in device memory.
struct Limbs {
  const Half* data;     // [rows, groups, 2, 16]
  const Size* sizes;    // [rows]
  const float* centre;  // [groups * 16]
  int64_t groups;
  int64_t window;  // rows up to the prior's

  static constexpr int64_t padded(int64_t rows) { return (rows + kLimbRows - 1) / kLimbRows * kLimbRows; }

  static int64_t bytes(int64_t window, int64_t prior, int64_t dim) {
    const int64_t rows = padded(window) + padded(prior), groups = (dim + kGroup16 - 1) / kGroup16;
    return rows * (groups * 2 * kGroup16 * int64_t(sizeof(Half)) + int64_t(sizeof(Size))) + groups * kGroup16 * 4;
  }

  // memory: of `bytes` bytes, aligned to 16.
  static Limbs in(void* memory, int64_t window, int64_t prior, int64_t dim) {
    const int64_t rows = padded(window) + padded(prior), groups = (dim + kGroup16 - 1) / kGroup16;
    Half* const data = static_cast<Half*>(memory);
    Size* const sizes = reinterpret_cast<Size*>(data + rows * groups * 2 * kGroup16);
    return {data, sizes, reinterpret_cast<float*>(sizes + rows), groups, padded(window)};
  }

  __device__ const Half* row(int64_t row) const { return data + row * groups * 2 * kGroup16; }
};

// Enqueues what fills them; with a centre of zero if not `centred`.
cudaError_t split(const Samples<float>& samples, bool centred, const Limbs& limbs, cudaStream_t stream);

}  // namespace mow::cuda
