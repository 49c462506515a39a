// Ctrl-C while a kernel runs for long: Python handles signals between its own steps only, and a call of ours is one step.
#pragma once

#include <atomic>
#include <chrono>

namespace mow::cpu {

// Looks for signals while the tasks of one call run. Where one raises, the rest of the tasks is left out: the call returns
// what nobody will see, since Python raises before it takes another step.
class Watch {
 public:
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // To be asked before each task, on any thread.
  bool stops() {
    if (stopped()) return true;
    if (!handles_signals()) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return false;
    const bool first = next_ == std::chrono::steady_clock::time_point{};
    next_ = now + kPause;
    if (!first && signal_raises()) stopped_.store(true, std::memory_order_relaxed);
    return stopped();
  }

 private:
  static constexpr std::chrono::milliseconds kPause{200};

  // Whether this is the thread that Python handles signals on.
  static bool handles_signals();
  // Lets Python handle what has come. Whether that raised, which Python will do again as soon as the call has returned.
  static bool signal_raises();

  std::atomic<bool> stopped_{false};
  std::chrono::steady_clock::time_point next_{};  // the main thread's own; a call that asks for no task does not ask for the time
};

}  // namespace mow::cpu
