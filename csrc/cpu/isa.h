// Vectorised for the machine it runs on, without being tied to it.
//
// The kernels are written with the compilers' vector types and compiled once per instruction set, each time into a
// namespace of its own (MOW_ISA); the best set that the processor has is chosen when the library is loaded. One unit per set
// rather than target_clones: a callee that is not inlined into a clone is not cloned with it. Such a unit must define
// nothing with external linkage outside its namespace - no standard containers, no inline functions of shared headers -
// or the linker might keep the copy that needs AVX-512 for everyone.
#pragma once

namespace mow::cpu {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// What the processor has, or less where the environment variable MOW_ISA was "baseline" or "avx2" when the library was
// loaded (for tests: the results of all sets must agree).
Isa best_isa();

}  // namespace mow::cpu

// The member of this name in the best instruction set's namespace; all of them declare it with the same type.
#if defined(__x86_64__)
#define MOW_FOR_EACH_ISA(apply) apply(baseline) apply(avx2) apply(avx512)
#define MOW_BEST_ISA(name)                       \
  (best_isa() == Isa::kAvx512 ? avx512::name     \
   : best_isa() == Isa::kAvx2 ? avx2::name       \
                              : baseline::name)
#else
#define MOW_FOR_EACH_ISA(apply) apply(baseline)
#define MOW_BEST_ISA(name) baseline::name
#endif
