// The sliced-Wasserstein distance to N(0, I) over a window whose projections on fixed directions are kept sorted, as
// csrc/cpu/sliced_wasserstein_sorted.h says.
//
// What leaves a list and what enters it is sorted by itself; then every key of the list finds where it goes from how many of
// these are below it, all at once. Where the ring stands and which list is the window's is in device memory, so that a
// CUDA graph can repeat a step. Sums are in a fixed order.

#include "cuda/sliced_wasserstein.cuh"

namespace mow::cuda {
namespace {

constexpr int kItems = 4;  // keys of a list that a thread moves
constexpr int kMoved = kItems * kThreads;
constexpr int64_t kMostChunk = 16384;  // directions of a launch, of which there may be twice as many to sort

template <class T>
using Key = typename KeyOf<T>::Unsigned;

// The lists of one direction.
template <class T>
struct Lists {
  Key<T>*slots, *from, *to;

  __device__ Lists(const SortedWindow<T>& window, int64_t direction) {
    Key<T>* const first = window.keys + direction * window.size;
    const int64_t list = window.directions.count * window.size, current = window.state->list;
    slots = first, from = first + (1 + current) * list, to = first + (2 - current) * list;
  }
};

template <class K>
__device__ K key_of(K key) {
  return key;
}

template <class T>
__device__ Key<T> key_of(const Entry<T>& entry) {
  return entry.order();
}

// How many of the `count` ascending keys or entries are below `key`, or with `equals` not above it.
template <class Item, class K>
__device__ int64_t keys_below(const Item* items, int64_t count, K key, bool equals) {
  return first_not(count, [&](int64_t i) {
    const K probe = key_of(items[i]);
    return probe < key || (equals && probe == key);
  });
}

// The keys of the oldest rows -> entries [directions from `first` on, count].
template <class T>
__global__ void __launch_bounds__(kThreads) gather_oldest(
    const __grid_constant__ SortedWindow<T> window, int64_t first, int64_t count, Entry<T>* entries) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, direction = blockIdx.y;
  if (i >= count) return;
  int64_t slot = window.state->head - window.rows + i;
  slot += slot < 0 ? window.size : 0;
  entries[direction * count + i] = Entry<T>::of(decode<T>(Lists<T>(window, first + direction).slots[slot]), uint32_t(i));
}

// What is in a list, what leaves it and what enters it, ascending, of directions from `first` on.
template <class T>
struct Exchange {
  SortedWindow<T> window;
  int64_t first, leaves, enters;
  const Entry<T>*leaving, *entering;  // [directions, leaves], [directions, enters]
  // To measure: the means of the normal's bins, the weight of a row in one direction, totals [directions, blocks], and
  // slopes [directions, enters] or null.
  const double* means;
  double weight;
  double* totals;
  T* slopes;
};

// The window's list without what leaves it and with what enters it -> the other list. Of equal keys the first leave, and
// what enters stands behind them.
template <class T>
__global__ void __launch_bounds__(kThreads) exchange(const __grid_constant__ Exchange<T> p) {
  __shared__ double sums[kWarps];
  const Lists<T> lists(p.window, p.first + blockIdx.y);
  const int64_t rows = p.window.rows, direction = blockIdx.y;
  const Entry<T>* const leaving = p.leaving + direction * p.leaves;
  const Entry<T>* const entering = p.entering + direction * p.enters;
  double total = 0;
  for (int item = 0; item < kItems; ++item) {
    const int64_t i = int64_t(blockIdx.x) * kMoved + item * kThreads + threadIdx.x, own = i - rows;
    if (own >= p.enters) break;
    const Key<T> key = own < 0 ? lists.from[i] : entering[own].order();
    int64_t place = i;
    if (own < 0) {
      const int64_t below = keys_below(leaving, p.leaves, key, false);
      const int64_t equal = keys_below(leaving, p.leaves, key, true) - below;
      place -= below;
      if (equal > 0) {
        const int64_t before = i - keys_below(lists.from, rows, key, false);
        if (before < equal) continue;
        place -= equal;
      }
      place += keys_below(entering, p.enters, key, false);
    } else {
      place = own + keys_below(lists.from, rows, key, true) - keys_below(leaving, p.leaves, key, true);
    }
    lists.to[place] = key;
    if (p.means == nullptr) continue;
    const double difference = decode<T>(key) - T(p.means[place]);
    total += p.weight * (difference * difference);
    if (own >= 0 && p.slopes != nullptr) {
      p.slopes[direction * p.enters + entering[own].row()] = T(p.weight * 2 * difference);
    }
  }
  if (p.means == nullptr) return;
  total = block_sum(total, sums);
  if (threadIdx.x == 0) p.totals[direction * gridDim.x + blockIdx.x] = total;
}

// Entries [directions from `first` on, k] -> the slots of their rows. With `moves`, the ring goes on by k rows and to the
// other list.
template <class T>
__global__ void __launch_bounds__(kThreads) store_keys(
    const __grid_constant__ SortedWindow<T> window, int64_t first, int64_t here, int64_t k, const Entry<T>* entries,
    bool moves) {
  SortedState* const state = window.state;
  const int64_t head = window.rows == 0 ? window.head : state->head;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < k * here; i += int64_t(gridDim.x) * kThreads) {
    const Entry<T> entry = entries[i];
    window.keys[(first + i / k) * window.size + (head + entry.row()) % window.size] = entry.order();
  }
  if (!moves) return;
  __syncthreads();  // all threads have read the head
  if (threadIdx.x == 0 && atomicAdd(&state->ticket, 1u) == gridDim.x - 1) {
    state->head = (head + k) % window.size;
    state->list = 1 - state->list;
    state->ticket = 0;
  }
}

// How a call is run: some directions at a time, with scratch for the entries of these.
template <class T>
struct SortedPlan {
  int64_t k, kept, leaves, chunk, blocks;  // blocks: of an exchange
  int64_t entries, totals, slopes, scratch;  // bytes

  SortedPlan(const SortedWindow<T>& window, bool measures) {
    k = window.fresh.count, kept = std::min(window.rows, window.size - k), leaves = window.rows - kept;
    const int64_t count = window.directions.count, bytes = (k + leaves) * int64_t(sizeof(Entry<T>));
    chunk = std::clamp<int64_t>((int64_t{1} << 28) / bytes, 1, std::min(count, kMostChunk));
    blocks = ceil_divide(window.rows + k, kMoved);
    entries = chunk * bytes;
    totals = measures ? count * blocks * int64_t(sizeof(double)) : 0;
    slopes = measures ? chunk * k * int64_t(sizeof(T)) : 0;
    scratch = 2 * entries + totals + slopes;
  }
};

// A chunk of directions: their fresh rows' entries, [here, k], which come out sorted where the lists are `made`.
template <class T>
cudaError_t run_chunk(
    Exchange<T>& p, const SortedPlan<T>& plan, int64_t here, bool made, Entry<T>* memory, Entry<T>*& fresh,
    cudaStream_t stream) {
  const SortedWindow<T>& window = p.window;
  Rows<T> some = window.directions;
  some.data += p.first * some.row_stride;
  some.count = here;
  Entry<T>*entries = memory, *spare = memory + here * (plan.k + plan.leaves);
  auto failed = launch(
      project<T>, project_blocks(plan.k, here), kThreads, 0, 1, stream, Sequence<T>{window.fresh, {}},
      Sequence<T>{some, {}}, window.dim, int64_t{0}, entries, static_cast<unsigned*>(nullptr), false);
  fresh = entries;
  if (!made || failed != cudaSuccess) return failed;
  const int64_t before = here * plan.k;  // entries, behind which are those that leave
  if (plan.leaves > 0) {
    const dim3 blocks(unsigned(ceil_divide(plan.leaves, kThreads)), unsigned(here));
    failed = launch(gather_oldest<T>, blocks, kThreads, 0, 1, stream, window, p.first, plan.leaves, entries + before);
  }
  if (failed != cudaSuccess) return failed;
  Entry<T>*oldest = entries + before, *spare_oldest = spare + before;
  const bool together = plan.leaves == plan.k;
  failed = sort_entries(entries, spare, plan.k, together ? 2 * here : here, stream);
  if (together) oldest = entries + before;
  if (!together && failed == cudaSuccess) failed = sort_entries(oldest, spare_oldest, plan.leaves, here, stream);
  if (failed != cudaSuccess) return failed;
  fresh = entries;
  p.leaves = plan.leaves, p.enters = plan.k, p.leaving = oldest, p.entering = entries;
  return launch(exchange<T>, dim3(unsigned(plan.blocks), unsigned(here)), kThreads, 0, 1, stream, p);
}

}  // namespace

template <class T>
int64_t sorted_scratch(const SortedWindow<T>& window, bool measures) {
  return SortedPlan<T>(window, measures).scratch;
}

template <class T>
cudaError_t evaluate_sorted(
    const SortedWindow<T>& window, const double* bins, const Results<T>& results, void* scratch, cudaStream_t stream) {
  const SortedPlan<T> plan(window, true);
  const int64_t count = window.directions.count, k = plan.k;
  auto* const entries = static_cast<Entry<T>*>(scratch);
  auto* const totals = reinterpret_cast<double*>(static_cast<unsigned char*>(scratch) + 2 * plan.entries);
  auto* const slopes = reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(totals) + plan.totals);
  const Sliced<T> problem{{window.fresh, {}, {}, window.dim}, window.directions, bins, 2, results};
  Entry<T>* fresh;
  for (int64_t first = 0; first < count; first += plan.chunk) {
    const int64_t here = std::min(plan.chunk, count - first);
    Exchange<T> p{window, first, 0, 0, nullptr, nullptr, bins + 1, 1 / (double(plan.kept + k) * double(count)),
                  totals + first * plan.blocks, results.g_current ? slopes : nullptr};
    auto failed = run_chunk(p, plan, here, true, entries, fresh, stream);
    if (failed == cudaSuccess && results.g_current) {
      failed = launch(
          spread<T>, dim3(unsigned(ceil_divide(k * window.dim, kThreads))), kThreads, 0, 1, stream, problem,
          static_cast<const T*>(slopes), first, here);
    }
    if (failed != cudaSuccess) return failed;
  }
  return launch(
      sliced_finish<T>, dim3(1), kThreads, 0, 1, stream, static_cast<const double*>(totals), count * plan.blocks, bins,
      results);
}

template <class T>
cudaError_t push_sorted(const SortedWindow<T>& window, bool evaluated, void* scratch, cudaStream_t stream) {
  const SortedPlan<T> plan(window, false);
  const int64_t count = window.directions.count;
  Entry<T>* fresh;
  for (int64_t first = 0; first < count; first += plan.chunk) {
    const int64_t here = std::min(plan.chunk, count - first);
    Exchange<T> p{window, first, 0, 0, nullptr, nullptr, nullptr, 0, nullptr, nullptr};
    auto failed = run_chunk(p, plan, here, !evaluated, static_cast<Entry<T>*>(scratch), fresh, stream);
    if (failed == cudaSuccess) {
      const int64_t blocks = std::clamp<int64_t>(ceil_divide(plan.k * here, kThreads), 1, 1024);
      failed = launch(
          store_keys<T>, dim3(unsigned(blocks)), kThreads, 0, 1, stream, window, first, here, plan.k,
          static_cast<const Entry<T>*>(fresh), first + here == count);
    }
    if (failed != cudaSuccess) return failed;
  }
  return cudaSuccess;
}

#define MOW_INSTANTIATE(T)                                                                                        \
  template int64_t sorted_scratch(const SortedWindow<T>&, bool);                                                  \
  template cudaError_t evaluate_sorted(const SortedWindow<T>&, const double*, const Results<T>&, void*, cudaStream_t); \
  template cudaError_t push_sorted(const SortedWindow<T>&, bool, void*, cudaStream_t);
MOW_INSTANTIATE(float)
MOW_INSTANTIATE(double)
#undef MOW_INSTANTIATE

}  // namespace mow::cuda
