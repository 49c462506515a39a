#include "cpu/isa.h"

#include <cstdlib>
#include <string_view>

namespace mow::cpu {
namespace {

Isa detect() {
  const char* limit = std::getenv("MOW_ISA");
  [[maybe_unused]] const std::string_view wanted = limit ? limit : "";
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (wanted == "baseline" || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::kBaseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 && wanted != "avx2" ? Isa::kAvx512 : Isa::kAvx2;
#else
  return Isa::kBaseline;
#endif
}

const Isa chosen = detect();

}  // namespace

Isa best_isa() { return chosen; }

}  // namespace mow::cpu
