#undef _FORTIFY_SOURCE  // whose longjmp refuses to go to another stack
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cooperative_groups.h"
#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define UNWATCHED __attribute__((no_sanitize_thread, noinline))
#else
#define UNWATCHED
#endif

namespace cuda_shim {

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

namespace {

constexpr size_t kStack = 64 << 10;

// How a test may turn the device: its compute capability, and the order of the blocks and of the fibers' turns.
int major_capability = 9;
int order = 0;  // 0 ascending, 1 descending, a warp as far as it gets; 2 shuffled blocks, all fibers, the odd ones first

// Shared memory of a block without asking; at most, which every device from compute capability 8.0 on has, and those of 9;
// blocks of a cluster.
constexpr size_t kDefaultShared = 48 << 10;
size_t most_shared() { return size_t(major_capability == 9 ? 227 : 99) << 10; }
constexpr unsigned kMostCluster = 8;
constexpr unsigned kMostTogether = kProcessors * kBlocksOfOne;  // blocks of a cooperative launch

std::map<const void*, size_t> allowed_shared;  // by kernel

// The barriers that were met: FILE:LINE (also of a whole grid), or of a cluster team:NUMBER in the launch. One may be left out.
struct Site {
  const char* file;
  int line;
  bool skipped;
};
Site sites[64];
int site_count = 0;
std::string skipped;

std::string name_of(const char* file, int line) {
  const char* const name = std::strrchr(file, '/');
  return std::string(name ? name + 1 : file) + ":" + std::to_string(line);
}

enum class State { kReady, kWaiting, kWatching, kFinished };

// Where a fiber, or what lets them take turns, goes on. Sanitizers know of swapcontext alone, which asks the kernel for the
// signal mask each time and is several times as slow as a jump.
struct Place {
  ucontext_t context;
  jmp_buf jump;
  bool has_begun = false;
};

struct Fiber {
  Place place;
  std::unique_ptr<char[]> stack;
  void* tsan = nullptr;
  State state;
  Scope scope;
  Condition until;  // it holds, where the fiber watches
  const uint64_t* word;
  unsigned number;
  dim3 thread, block;
  unsigned rank, warp;  // of the block in its team; of the warp in the team
  int team_barriers;
};

// What the fibers of a barrier pass on to each other. Two in turn: a fiber that is already at the next barrier has nothing
// to tell one that is still leaving this one.
struct Meeting {
  char passed[2];
  unsigned phase = 0;
};

std::deque<Fiber> fibers;  // which stay where they are
Place scheduler;
void* scheduler_tsan;
const void* scheduler_stack;
size_t scheduler_size;
Fiber* running;
const std::function<void()>* body;
dim3 grid;
unsigned team;
std::vector<std::vector<unsigned char>> shared;
char left[std::max(kMostCluster, kMostTogether)];  // whether a block of the team has a thread that is done
std::vector<uint64_t> words;
std::vector<Meeting> warps, blocks;
Meeting whole;
char started, finished;
Copy late[64];  // what ends as late as can be
unsigned late_count = 0;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "cuda_shim: %s\n", what);
  std::abort();
}

UNWATCHED Meeting& meeting(const Fiber& fiber, Scope scope) {
  return scope == Scope::kWarp ? warps[fiber.warp] : scope == Scope::kBlock ? blocks[fiber.rank] : whole;
}

// stack and size: of the place to go to.
UNWATCHED void go(
    Place& from, Place& to, [[maybe_unused]] void* tsan, [[maybe_unused]] const void* stack,
    [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack, size);
#endif
  from.has_begun = true;
#if defined(SANITIZED)
  swapcontext(&from.context, &to.context);
#else
  if (_setjmp(from.jump) == 0) {
    if (to.has_begun) _longjmp(to.jump, 1);
    setcontext(&to.context);
  }
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

UNWATCHED void to_scheduler(State state) {
  Fiber* const fiber = running;
  fiber->state = state;
  go(fiber->place, scheduler, scheduler_tsan, scheduler_stack, scheduler_size);
}

UNWATCHED void mark_left() { left[running->rank] = 1; }

// A fiber is a thread of one block after the other.
UNWATCHED void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
  for (;;) {
    receives(&started);
    (*body)();
    passes(&finished);
    mark_left();
    to_scheduler(State::kFinished);
  }
}

void prepare(unsigned count) {
  while (fibers.size() < count) {
    Fiber& fiber = fibers.emplace_back();
    fiber.stack.reset(new char[kStack]);
    ucontext_t& context = fiber.place.context;
    getcontext(&context);
    context.uc_stack = {};
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = kStack;
    makecontext(&context, enter, 0);
#if defined(__SANITIZE_ADDRESS__)
    context.uc_stack.ss_sp = nullptr;  // or every switch would unpoison all of it
#endif
#if defined(__SANITIZE_THREAD__)
    fiber.tsan = __tsan_create_fiber(0);
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

// Whether a fiber went on.
UNWATCHED bool take_turn(Fiber& fiber) {
  const bool watched = fiber.state == State::kWatching && (!fiber.until || fiber.until(fiber.word, fiber.number));
  if (fiber.state != State::kReady && !watched) return false;
  running = &fiber;
  go(scheduler, fiber.place, fiber.tsan, fiber.stack.get(), kStack);
  return true;
}

// Lets a warp go on until something else than itself holds it up; whether it did.
bool run_warp(unsigned warp) {
  bool any = false;
  for (bool more = true; more; any |= more) {
    more = false;
    bool together = true;
    for (unsigned i = warp * 32; i < (warp + 1) * 32; ++i) {
      more |= take_turn(fibers[i]);
      together &= fibers[i].state == State::kWaiting && fibers[i].scope == Scope::kWarp;
    }
    if (!together) continue;
    for (unsigned i = warp * 32; i < (warp + 1) * 32; ++i) fibers[i].state = State::kReady;
    warps[warp].phase += 1;
    more = true;
  }
  return any;
}

// Copies are not bound to any order.
UNWATCHED bool end_a_copy() {
  if (late_count == 0) return false;
  late_count -= 1;
  const Copy copy = late[order == 1 ? late_count : 0];
  for (unsigned i = 0; order != 1 && i < late_count; ++i) late[i] = late[i + 1];
  copy.end(copy);
  return true;
}

void run_team(unsigned count) {
  std::vector<unsigned> turns(count);
  for (unsigned i = 0; i < count; ++i) turns[i] = i;
  if (order == 2) std::stable_partition(turns.begin(), turns.end(), [](unsigned i) { return i % 2 == 1; });
  std::vector<Meeting> all(1);
  for (;;) {
    bool any = false;
    const unsigned most = count / 32;
    for (unsigned i = 0; order != 2 && i < most; ++i) any |= run_warp(order == 0 ? i : most - 1 - i);
    for (const unsigned i : turns) any |= order == 2 && take_turn(fibers[i]);
    if (std::all_of(turns.begin(), turns.end(), [](unsigned i) { return fibers[i].state == State::kFinished; })) break;
    any |= release(count, Scope::kWarp, warps, [](const Fiber& f) { return f.warp; });
    any |= release(count, Scope::kBlock, blocks, [](const Fiber& f) { return f.rank; });
    if (release(count, Scope::kTeam, all, [](const Fiber&) { return 0u; })) whole.phase += 1, any = true;
    if (any) continue;
    if (!end_a_copy()) fail("the threads wait at different barriers, or for what does not come");
  }
  if (end_a_copy()) fail("nobody waited for a copy");
  receives(&finished);
}

}  // namespace

UNWATCHED dim3 thread_index() { return running->thread; }
UNWATCHED dim3 block_index() { return running->block; }
UNWATCHED dim3 grid_size() { return grid; }
UNWATCHED unsigned team_rank() { return running->rank; }
UNWATCHED unsigned team_size() { return team; }
UNWATCHED unsigned warp_in_team() { return running->warp; }
UNWATCHED unsigned thread_in_team() { return running->rank * 1024 + running->thread.x; }
UNWATCHED int turns() { return order; }
UNWATCHED unsigned char* shared_of(unsigned rank) {
  if (rank != running->rank && left[rank]) fail("a block's shared memory is wanted when threads of it have left");
  return shared[rank].data();
}

UNWATCHED bool is_skipped(Fiber& fiber, Scope scope, const char* file, int line) {
  if (scope == Scope::kWarp) return false;
  if (file == nullptr) file = "team", line = fiber.team_barriers++;
  for (int i = 0; i < site_count; ++i) {
    if (sites[i].line == line && sites[i].file == file) return sites[i].skipped;
  }
  if (site_count == 64) fail("there are more barriers than places for them");
  sites[site_count].file = file, sites[site_count].line = line;
  return sites[site_count++].skipped = name_of(file, line) == skipped;
}

UNWATCHED void barrier(Scope scope, const char* file, int line) {
  Fiber* const fiber = running;
  if (is_skipped(*fiber, scope, file, line)) return;
  Meeting& here = meeting(*fiber, scope);
  char* const passed = &here.passed[here.phase % 2];
  passes(passed);
  fiber->scope = scope;
  to_scheduler(State::kWaiting);
  receives(passed);
}

UNWATCHED void wait_until(Condition holds, const uint64_t* word, unsigned number) {
  if (holds && holds(word, number)) return;
  running->until = holds, running->word = word, running->number = number;
  to_scheduler(State::kWatching);
}

UNWATCHED void end_later(const Copy& copy) {
  if (late_count == sizeof late / sizeof late[0]) fail("more copies at a time than places for them");
  late[late_count++] = copy;
}

unsigned char* shared_memory() { return shared_of(team_rank()); }

uint64_t exchange(uint64_t word, int lane_mask) {
  const unsigned lane = thread_index().x % 32, warp = [] () UNWATCHED { return running->warp; }();
  words[warp * 32 + lane] = word;
  barrier(Scope::kWarp);
  const uint64_t other = words[warp * 32 + (lane ^ unsigned(lane_mask))];
  barrier(Scope::kWarp);
  return other;
}

bool any(bool here) {
  const unsigned first = warp_in_team() * 32;
  words[first + thread_index().x % 32] = here;
  barrier(Scope::kWarp);
  const bool found = std::any_of(&words[first], &words[first] + 32, [](uint64_t word) { return word != 0; });
  barrier(Scope::kWarp);
  return found;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread) {
  body = &thread;
  grid = config.gridDim;
  const cudaLaunchAttribute* const attribute = config.numAttrs > 0 ? config.attrs : nullptr;
  const bool together = attribute && attribute->id == cudaLaunchAttributeCooperative;
  team = together ? grid.x : attribute ? attribute->val.clusterDim.x : 1;
  const unsigned threads = config.blockDim.x, count = team * threads;
  const auto allowed = allowed_shared.find(kernel);
  if (config.dynamicSmemBytes > (allowed == allowed_shared.end() ? kDefaultShared : allowed->second)) {
    return cudaErrorInvalidValue;
  }
  const unsigned most = together ? kMostTogether : major_capability >= 9 ? kMostCluster : 1;
  if (team == 0 || team > most) return cudaErrorInvalidValue;
  if (threads == 0 || threads > 1024) return cudaErrorInvalidValue;
  if (threads % 32 != 0) fail("a block must have whole warps");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x % team != 0 || grid.x >= 1u << 31) return cudaErrorInvalidValue;
  if (grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidValue;
  prepare(count);
#if defined(__SANITIZE_THREAD__)
  scheduler_tsan = __tsan_get_current_fiber();
#endif
  warps.assign(count / 32, {});
  blocks.assign(team, {});
  whole = {};
  words.assign(count, 0);
  std::vector<unsigned> teams(grid.x / team * grid.y * grid.z);
  std::iota(teams.begin(), teams.end(), 0u);
  if (order == 1) std::reverse(teams.begin(), teams.end());
  if (order == 2) std::shuffle(teams.begin(), teams.end(), std::mt19937(unsigned(teams.size())));
  for (const unsigned number : teams) {
    const unsigned x = number % (grid.x / team) * team, yz = number / (grid.x / team);
    // What nobody has written is NaN.
    std::fill_n(left, team, char(0));
    shared.assign(team, std::vector<unsigned char>(config.dynamicSmemBytes, 0xff));
    for (unsigned i = 0; i < count; ++i) {
      fibers[i].rank = i / threads;
      fibers[i].warp = i / 32;
      fibers[i].thread = dim3(i % threads, 0, 0);
      fibers[i].block = dim3(x + i / threads, yz % grid.y, yz / grid.y);
      fibers[i].state = State::kReady;
      fibers[i].team_barriers = 0;
    }
    passes(&started);
    run_team(count);
  }
  return cudaSuccess;
}

}  // namespace cuda_shim

namespace mow::cuda {

unsigned char* dynamic_shared() { return cuda_shim::shared_of(cuda_shim::team_rank()); }

}  // namespace mow::cuda

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? cuda_shim::major_capability : kProcessors;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || size_t(value) > cuda_shim::most_shared()) return cudaErrorInvalidValue;
  cuda_shim::allowed_shared[kernel] = size_t(value);
  return cudaSuccess;
}

// As of code for each of the architectures: what is for sm_90a alone is for no thread elsewhere.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->maxThreadsPerBlock = cuda_shim::major_capability == 9 ? 1024 : 0;
  return cudaSuccess;
}

// Leaves out the barrier at a site; null for none.
extern "C" void cuda_shim_skip(const char* site) { cuda_shim::skipped = site ? site : ""; }

extern "C" void cuda_shim_print_sites() {
  std::set<std::string> names;  // a header's have one in each of the sources
  for (int i = 0; i < cuda_shim::site_count; ++i) names.insert(cuda_shim::name_of(cuda_shim::sites[i].file, cuda_shim::sites[i].line));
  for (const std::string& name : names) std::printf("site %s\n", name.c_str());
}

extern "C" void cuda_shim_turn(int major_capability, int order) {
  cuda_shim::major_capability = major_capability;
  cuda_shim::order = order;
}
