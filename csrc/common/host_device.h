// Functions that run on the host and, compiled by nvcc, on the device too. Always inlined, so that units which are compiled
// once per instruction set may use them (cpu/isa.h).
#pragma once

#if defined(__CUDACC__)
#define MOW_HD __host__ __device__ __forceinline__
#else
#define MOW_HD inline __attribute__((always_inline))
#endif
