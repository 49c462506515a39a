#include "cpu/parallel.h"

#include <pthread.h>

namespace mow::cpu {
namespace {

std::atomic<bool> forked{false};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

bool has_forked() { return forked; }

}  // namespace mow::cpu
