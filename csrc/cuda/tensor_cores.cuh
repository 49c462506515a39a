// The instructions that a product on tensor cores takes, from compute capability 8.0 on. Where there are none, on the CPU
// of a test, something else stands in for them (tests/cuda_shim/tensor_cores.cpp).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace mow::cuda {

using Half = uint16_t;  // a float16 as its bits

#if defined(__CUDACC__)

__device__ inline Half half_of(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ inline float float_of(Half x) { return __half2float(__ushort_as_half(x)); }

// c += a b of float16 numbers, a [16, 16], b [16, 8], by a warp; the products are exact. Of a, lane l has rows l/4 and
// l/4 + 8, and columns 2(l%4), 2(l%4) + 1 and the same plus 8; of b rows like those columns, and column l/4; of c rows l/4
// and l/4 + 8, columns 2(l%4) and 2(l%4) + 1.
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices [8, 8] of float16 numbers out of shared memory, by a warp: lane l names row l%8 of matrix l/8, and gets
// columns 2(l%4) and 2(l%4) + 1 of row l/4 of each.
__device__ inline void load_matrices(unsigned (&to)[4], const void* row) {
  const unsigned at = unsigned(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at)
               : "memory");
}

// 16 bytes from device memory to shared memory, which are there after `finish_copies` of the thread that asked for them.
__device__ inline void begin_copy(void* to, const void* from) {
  const unsigned at = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}
__device__ inline void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

Half half_of(float x);
float float_of(Half x);
void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
void load_matrices(unsigned (&to)[4], const void* row);
void begin_copy(void* to, const void* from);
void finish_copies();

#endif

}  // namespace mow::cuda
