#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cooperative_groups.h"
#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define UNWATCHED __attribute__((no_sanitize_thread, noinline))
#else
#define UNWATCHED
#endif

namespace cuda_shim {
namespace {

constexpr size_t kStack = 64 << 10;

// How a test may turn the device: its compute capability, and the order in which the fibers take turns.
int major_capability = 9;
int order = 0;  // 0 ascending, 1 descending, 2 odd ones first

enum class State { kReady, kWaiting, kFinished };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  void* tsan = nullptr;
  State state;
  Scope scope;
  dim3 thread, block;
  unsigned rank, warp;  // of the block in its team; of the warp in the team
};

// What the fibers of a barrier pass on to each other. Two in turn: a fiber that is already at the next barrier has nothing
// to tell one that is still leaving this one.
struct Meeting {
  char passed[2];
  unsigned phase = 0;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
void* scheduler_tsan;
const void* scheduler_stack;
size_t scheduler_size;
Fiber* running;
const std::function<void()>* body;
dim3 grid;
unsigned team;
std::vector<std::vector<unsigned char>> shared;
std::vector<uint64_t> words;
std::vector<Meeting> warps, blocks;
Meeting whole;
char started, finished;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "cuda_shim: %s\n", what);
  std::abort();
}

UNWATCHED Meeting& meeting(const Fiber& fiber, Scope scope) {
  return scope == Scope::kWarp ? warps[fiber.warp] : scope == Scope::kBlock ? blocks[fiber.rank] : whole;
}

void passes([[maybe_unused]] char* to) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(to);
#endif
}

void receives([[maybe_unused]] char* from) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(from);
#endif
}

// stack and size: of the context to switch to.
UNWATCHED void switch_context(
    ucontext_t* from, ucontext_t* to, [[maybe_unused]] void* tsan, [[maybe_unused]] const void* stack,
    [[maybe_unused]] size_t size, [[maybe_unused]] bool ends) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(ends ? nullptr : &fake, stack, size);
#endif
  swapcontext(from, to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

UNWATCHED void to_scheduler(State state) {
  Fiber* const fiber = running;
  fiber->state = state;
  switch_context(
      &fiber->context, &scheduler, scheduler_tsan, scheduler_stack, scheduler_size, state == State::kFinished);
}

UNWATCHED void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
  receives(&started);
  (*body)();
  passes(&finished);
  to_scheduler(State::kFinished);
  fail("a finished thread went on");
}

void start(Fiber& fiber) {
  fiber.state = State::kReady;
  getcontext(&fiber.context);
  fiber.context.uc_stack = {};
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  makecontext(&fiber.context, enter, 0);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack.get(), kStack);  // frames that were never left
  fiber.context.uc_stack.ss_sp = nullptr;                    // or every switch would do that
#endif
}

void prepare(unsigned count) {
  const size_t before = fibers.size();
  if (before < count) fibers.resize(count);
  for (size_t i = before; i < count; ++i) {
    fibers[i].stack.reset(new char[kStack]);
#if defined(__SANITIZE_THREAD__)
    fibers[i].tsan = __tsan_create_fiber(0);
#endif
  }
}

// Lets the fibers of each complete barrier go on; false if there was none.
template <class Group>
bool release(unsigned count, Scope scope, std::vector<Meeting>& meetings, const Group& group_of) {
  std::vector<unsigned> waiting(meetings.size()), finished(meetings.size()), size(meetings.size());
  for (unsigned i = 0; i < count; ++i) {
    const unsigned group = group_of(fibers[i]);
    ++size[group];
    finished[group] += fibers[i].state == State::kFinished;
    waiting[group] += fibers[i].state == State::kWaiting && fibers[i].scope == scope;
  }
  bool any = false;
  for (unsigned i = 0; i < count; ++i) {
    const unsigned group = group_of(fibers[i]);
    if (waiting[group] == 0) continue;
    if (finished[group] > 0) fail("a thread finished while others of its group wait at a barrier");
    if (waiting[group] < size[group]) continue;
    fibers[i].state = State::kReady;
    any = true;
  }
  for (size_t group = 0; group < meetings.size(); ++group) meetings[group].phase += size[group] && waiting[group] == size[group];
  return any;
}

void run_team(unsigned count) {
  std::vector<unsigned> turns(count);
  for (unsigned i = 0; i < count; ++i) turns[i] = order == 1 ? count - 1 - i : i;
  if (order == 2) std::stable_partition(turns.begin(), turns.end(), [](unsigned i) { return i % 2 == 1; });
  std::vector<Meeting> all(1);
  for (;;) {
    bool left = false;
    for (const unsigned i : turns) {
      Fiber& fiber = fibers[i];
      if (fiber.state == State::kReady) {
        running = &fiber;
        switch_context(&scheduler, &fiber.context, fiber.tsan, fiber.stack.get(), kStack, false);
      }
      left |= fiber.state != State::kFinished;
    }
    if (!left) break;
    bool any = release(count, Scope::kWarp, warps, [](const Fiber& f) { return f.warp; });
    any |= release(count, Scope::kBlock, blocks, [](const Fiber& f) { return f.rank; });
    if (release(count, Scope::kTeam, all, [](const Fiber&) { return 0u; })) whole.phase += 1, any = true;
    if (!any) fail("the threads wait at different barriers");
  }
  receives(&finished);
}

}  // namespace

UNWATCHED dim3 thread_index() { return running->thread; }
UNWATCHED dim3 block_index() { return running->block; }
UNWATCHED dim3 grid_size() { return grid; }
UNWATCHED unsigned team_rank() { return running->rank; }
UNWATCHED unsigned team_size() { return team; }
UNWATCHED unsigned char* shared_of(unsigned rank) { return shared[rank].data(); }

UNWATCHED void barrier(Scope scope) {
  Fiber* const fiber = running;
  Meeting& here = meeting(*fiber, scope);
  char* const passed = &here.passed[here.phase % 2];
  passes(passed);
  fiber->scope = scope;
  to_scheduler(State::kWaiting);
  receives(passed);
}

uint64_t exchange(uint64_t word, int lane_mask) {
  const unsigned lane = thread_index().x % 32, warp = [] () UNWATCHED { return running->warp; }();
  words[warp * 32 + lane] = word;
  barrier(Scope::kWarp);
  const uint64_t other = words[warp * 32 + (lane ^ unsigned(lane_mask))];
  barrier(Scope::kWarp);
  return other;
}

void launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  body = &thread;
  grid = config.gridDim;
  team = config.numAttrs > 0 ? config.attrs[0].val.clusterDim.x : 1;
  const unsigned threads = config.blockDim.x, count = team * threads;
  if (threads == 0 || threads % 32 != 0 || threads > 1024) fail("a block must have whole warps, 1024 threads at most");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x % team != 0) fail("the grid is empty or no multiple of the cluster");
  if (grid.y > 65535 || grid.z > 65535) fail("the grid is too large in y or z");
  prepare(count);
#if defined(__SANITIZE_THREAD__)
  scheduler_tsan = __tsan_get_current_fiber();
#endif
  warps.assign(count / 32, {});
  blocks.assign(team, {});
  whole = {};
  words.assign(count, 0);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; x += team) {
        // What nobody has written is NaN.
        shared.assign(team, std::vector<unsigned char>(config.dynamicSmemBytes, 0xff));
        for (unsigned i = 0; i < count; ++i) {
          fibers[i].rank = i / threads;
          fibers[i].warp = i / 32;
          fibers[i].thread = dim3(i % threads, 0, 0);
          fibers[i].block = dim3(x + i / threads, y, z);
          start(fibers[i]);
        }
        passes(&started);
        run_team(count);
      }
    }
  }
}

}  // namespace cuda_shim

namespace mow::cuda {

unsigned char* dynamic_shared() { return cuda_shim::shared_of(cuda_shim::team_rank()); }

}  // namespace mow::cuda

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = cuda_shim::major_capability;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

extern "C" void cuda_shim_turn(int major_capability, int order) {
  cuda_shim::major_capability = major_capability;
  cuda_shim::order = order;
}
