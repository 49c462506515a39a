// Independent tasks on torch's threads, without an order and without a hang after fork.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "cpu/interrupt.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace mow::cpu {

// Whether this process was forked since the library was loaded. A pool of threads does not survive a fork and waking it
// in the child hangs, so the child works alone.
bool has_forked();

// Calls task(0) ... task(count - 1), each once. A task must write to places of its own: which thread runs it, and when, is
// open. `parallel` false keeps to the calling thread, which is right for work below some 50 microseconds. Once `watch` stops,
// the rest is left out; null for what must come to its end, since it stays.
template <class Task>
void run_tasks(int64_t count, bool parallel, const Task& task, Watch* watch) {
  const int64_t threads = parallel && !has_forked() ? std::min<int64_t>(torch::stable::get_num_threads(), count) : 1;
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count && !(parallel && watch && watch->stops()); i = next++) task(i);
  };
  if (threads > 1) {
    torch::stable::parallel_for(0, threads, 1, work);
  } else {
    work(0, 1);
  }
}

}  // namespace mow::cpu
