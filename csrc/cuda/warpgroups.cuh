// The instructions of sm_90a for a product of four warps, out of shared memory that bulk copies fill: PTX ISA, "Asynchronous
// warpgroup level matrix instructions". No other architecture has them; on the CPU of a test something else stands in
// (tests/cuda_shim/warpgroups.cpp), which reads a descriptor as the instruction does.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/host_device.h"

// Whether the code that is being compiled has them.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MOW_WARPGROUPS 1
#else
#define MOW_WARPGROUPS 0
#endif

namespace mow::cuda {

// A slab: 64 rows of 128 bytes one after the other, their pieces of 16 bytes swizzled. It begins at a multiple of 1024 bytes
// of shared memory.
constexpr int kSlabRows = 64, kSlabLine = 128, kSlabBytes = kSlabRows * kSlabLine, kSlabAlignment = 1024;

// Where a byte of a row lies in a slab.
MOW_HD constexpr int slab_offset(int row, int byte) { return row * kSlabLine + (byte ^ row % 8 * 16); }

// An mbarrier.
using Arrivals = uint64_t;

#if defined(__CUDACC__)

__device__ inline unsigned shared_address(const void* shared) { return unsigned(__cvta_generic_to_shared(shared)); }

#if MOW_WARPGROUPS

// Before the first use, by one thread, which all others must know to have happened before theirs.
__device__ inline void begin_arrivals(Arrivals* arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrivals)) : "memory");
}
__device__ inline void finish_beginning() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// One thread says that so many bytes will arrive in this phase, and then has them copied, a multiple of 16 at a time.
__device__ inline void expect(Arrivals* arrivals, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrivals)), "r"(bytes) : "memory");
}
__device__ inline void begin_bulk_copy(void* to, const void* from, unsigned bytes, Arrivals* arrivals) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(arrivals))
               : "memory");
}

// Waits until the phase of that parity is over; the first one has parity 0.
__device__ inline void wait(Arrivals* arrivals, unsigned parity) {
  unsigned over = 0;
  while (!over) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
        : "=r"(over)
        : "r"(shared_address(arrivals)), "r"(parity)
        : "memory");
  }
}

// Whether the caller is the last of so many, in rounds: what the others did before is then known to it.
__device__ inline bool is_last(unsigned* counter, unsigned count) {
  unsigned before;
  asm volatile("atom.acq_rel.cta.shared::cta.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "r"(shared_address(counter)), "r"(count - 1)
               : "memory");
  return before == count - 1;
}

// By all threads of a warpgroup, before the first product of some.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Begins c = a b^T, or c += a b^T if kAdds, of float16 numbers, a and b [64, 16], by a warpgroup. Of c lane l of warp w of it
// has in c[i] row 16 w + l/4 + 8 (i/2 % 2), column 8 (i/4) + 2 (l%4) + i%2.
template <bool kAdds>
__device__ inline void begin_multiply(float (&c)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, 1, 0, 0;\n}"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]),
        "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]),
        "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]),
        "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
      : "l"(a), "l"(b), "n"(int(kAdds)));
}

// Numbers that the compiler must take for written, at no instruction.
__device__ inline void leave_open(float (&c)[32]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// By all threads of a warpgroup, after the last product, before what came of them is read.
__device__ inline void finish_products(float (&c)[32], float (&d)[32]) {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  leave_open(c), leave_open(d);
}

#endif

#else

unsigned shared_address(const void* shared);
void begin_arrivals(Arrivals* arrivals);
void finish_beginning();
void expect(Arrivals* arrivals, unsigned bytes);
void begin_bulk_copy(void* to, const void* from, unsigned bytes, Arrivals* arrivals);
void wait(Arrivals* arrivals, unsigned parity);
bool is_last(unsigned* counter, unsigned count);
void begin_products();
void finish_products(float (&c)[32], float (&d)[32]);
void begin_multiply(float (&c)[32], uint64_t a, uint64_t b, bool adds);
template <bool kAdds>
void begin_multiply(float (&c)[32], uint64_t a, uint64_t b) {
  begin_multiply(c, a, b, kAdds);
}

#endif

// What an instruction is told of 16 columns of float16 numbers of a slab: where they begin before they are swizzled, that
// eight rows take 1024 bytes, and the swizzle of 128 bytes. Those that begin at byte 0, 32, 64 or 96 of a row.
__device__ inline uint64_t descriptor(const void* slab, int byte) {
  const uint64_t first = (shared_address(slab) & 0x3ffff) >> 4;
  return (first | uint64_t(1) << 16 | uint64_t(8 * kSlabLine >> 4) << 32 | uint64_t(1) << 62) + unsigned(byte >> 4);
}

}  // namespace mow::cuda
