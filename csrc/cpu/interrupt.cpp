#include "cpu/interrupt.h"

#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mow::cpu {
namespace {

template <class Function>
Function* find(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

// Python's functions by name: the library is not linked to it, and without a Python around there are none.
struct Python {
  int (*lock)() = find<int()>("PyGILState_Ensure");
  void (*unlock)(int) = find<void(int)>("PyGILState_Release");
  int (*check_signals)() = find<int()>("PyErr_CheckSignals");
  void* (*occurred)() = find<void*()>("PyErr_Occurred");
  void (*clear)() = find<void()>("PyErr_Clear");
  unsigned long (*thread)() = find<unsigned long()>("PyThread_get_thread_ident");
  int (*raise_later)(unsigned long, void*) = find<int(unsigned long, void*)>("PyThreadState_SetAsyncExc");

  bool is_there() const { return lock && unlock && check_signals && occurred && clear && thread && raise_later; }
};

}  // namespace

bool Watch::handles_signals() {
#ifdef SYS_gettid
  static thread_local const bool main = syscall(SYS_gettid) == getpid();
  return main;
#else
  return false;
#endif
}

bool Watch::signal_raises() {
  static const Python python;
  if (!python.is_there()) return false;
  const int state = python.lock();
  const bool raised = python.check_signals() != 0;
  if (raised) {
    python.raise_later(python.thread(), python.occurred());
    python.clear();
  }
  python.unlock(state);
  return raised;
}

}  // namespace mow::cpu
