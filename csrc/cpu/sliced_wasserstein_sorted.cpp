#include "cpu/sliced_wasserstein_sorted.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/parallel.h"
#include "cpu/sliced_wasserstein.h"

namespace mow::cpu {
namespace {

// Numbers moved below which no other thread is woken.
constexpr double kSerialMoves = 1 << 18;

// The lists of one direction.
template <class T>
struct Lists {
  SignedKey<T>*slots, *from, *to;

  Lists(const SortedWindow& window, SignedKey<T>* keys, int64_t directions, int64_t direction) {
    const auto list = [&](int64_t number) { return keys + (number * directions + direction) * window.size; };
    slots = list(0), from = list(1 + window.current), to = list(2 - window.current);
  }
};

// The keys of the oldest rows of a direction, one every `stride`.
template <class T>
void copy_oldest(const SortedWindow& window, const SignedKey<T>* slots, int64_t count, SignedKey<T>* keys, int64_t stride) {
  int64_t slot = window.head - window.rows + (window.head < window.rows ? window.size : 0);
  for (int64_t i = 0; i < count; ++i) {
    keys[i * stride] = slots[slot];
    if (++slot == window.size) slot = 0;
  }
}

// One lane of keys [rows, lanes].
template <class K>
void copy_lane(const K* keys, int64_t stride, int64_t rows, std::vector<K>& lane) {
  lane.resize(rows);
  for (int64_t row = 0; row < rows; ++row) lane[row] = keys[row * stride];
}

// positions[i] = how many of the ascending `sorted` are below keys[i], or with kAbove not above it. Several searches at a
// time, because each of them waits for memory, and without branches, which would be guessed wrong half of the time.
template <bool kAbove, class K>
void search(const K* sorted, int64_t count, const std::vector<K>& keys, std::vector<int64_t>& positions) {
  constexpr int64_t kSearches = 8;
  const int64_t many = int64_t(keys.size());
  positions.resize(many);
  for (int64_t first = 0; first < many; first += kSearches) {
    const int64_t some = std::min(kSearches, many - first);
    const K* key = &keys[first];
    int64_t found[kSearches] = {};
    for (int64_t rest = count; rest > 0; rest /= 2) {
      const int64_t half = (rest + 1) / 2;
      for (int64_t i = 0; i < some; ++i) {
        const K probe = sorted[found[i] + half - 1];
        found[i] += (kAbove ? probe <= key[i] : probe < key[i]) ? half : 0;
      }
    }
    std::copy(found, found + some, &positions[first]);
  }
}

// The keys that leave a sorted list and those that enter it, ascending.
template <class T>
struct Exchange {
  std::vector<SignedKey<T>> leaving, entering;
  std::vector<int64_t> left, entered, places, ranks, seen;

  // from [count] -> to; those that enter stand behind their equals. places: where each of them went.
  void run(const SignedKey<T>* from, int64_t count, SignedKey<T>* to) {
    search<false>(from, count, leaving, left);
    search<true>(from, count, entering, entered);
    for (size_t i = 1; i < left.size(); ++i) left[i] = std::max(left[i], left[i - 1] + 1);  // equal keys
    places.resize(entering.size());
    int64_t at = 0, out = 0;
    size_t gone = 0;
    const auto copy_up_to = [&](int64_t end) {
      std::copy(from + at, from + end, to + out);
      out += end - at, at = end;
    };
    const auto drop_below = [&](int64_t end) {
      for (; gone < left.size() && left[gone] < end; ++gone) copy_up_to(left[gone]), ++at;
      copy_up_to(end);
    };
    for (size_t i = 0; i < entering.size(); ++i) {
      drop_below(entered[i]);
      places[i] = out;
      to[out++] = entering[i];
    }
    drop_below(count);
  }

  // The places of these keys, which entered; of equal ones, the first has the first.
  const std::vector<int64_t>& places_of(const std::vector<SignedKey<T>>& keys) {
    search<false>(entering.data(), int64_t(entering.size()), keys, ranks);
    seen.assign(keys.size(), 0);
    for (int64_t& rank : ranks) rank = places[rank + seen[rank]++];
    return ranks;
  }
};

// For each direction use(direction, its lists, keys of the fresh rows, and the exchange that made the new list, if that was
// to be made).
template <class T, class Use>
void for_each_direction(
    const SortedWindow& window, const Tensor& fresh, const Tensor& directions, bool make_list, const Use& use) {
  const SlicedKernels<T>& best = sliced_kernels<T>();
  const int64_t k = fresh.size(0), count = directions.size(1), lanes = best.lanes;
  const int64_t kept = std::min(window.rows, window.size - k), leaving = window.rows - kept;
  SignedKey<T>* const kept_keys = static_cast<SignedKey<T>*>(window.keys.data_ptr());
  run_tasks((count + lanes - 1) / lanes, double(window.size) * double(count) > kSerialMoves, [&](int64_t group) {
    const int64_t first = group * lanes, here = std::min(count - first, lanes);
    const auto lists_of = [&](int64_t lane) { return Lists<T>(window, kept_keys, count, first + lane); };
    const auto memory = allocate<SignedKey<T>>((2 * k + leaving) * lanes);
    SignedKey<T>*const keys = memory.get(), *const entering = keys + k * lanes, *const oldest = entering + k * lanes;
    const Projected<T> projected{matrix<T>(fresh), keys, k};
    best.project(&projected, 1, matrix<T>(directions), first, 1);
    if (make_list) {
      std::copy_n(keys, k * lanes, entering);
      best.sort(entering, k, here);
      std::fill_n(oldest, leaving * lanes, 0);
      for (int64_t lane = 0; lane < here; ++lane) {
        copy_oldest<T>(window, lists_of(lane).slots, leaving, oldest + lane, lanes);
      }
      best.sort(oldest, leaving, here);
    }
    Exchange<T> exchange;
    std::vector<SignedKey<T>> of_rows;
    for (int64_t lane = 0; lane < here; ++lane) {
      const Lists<T> lists = lists_of(lane);
      copy_lane(keys + lane, lanes, k, of_rows);
      if (make_list) {
        copy_lane(entering + lane, lanes, k, exchange.entering);
        copy_lane(oldest + lane, lanes, leaving, exchange.leaving);
        exchange.run(lists.from, window.rows, lists.to);
      }
      use(first + lane, lists, of_rows, exchange);
    }
  }, nullptr);
}

}  // namespace

template <class T>
std::tuple<Tensor, Tensor> evaluate_sorted(
    const SortedWindow& window, const Tensor& fresh, const Tensor& directions, const Tensor& normal, bool needs_grad) {
  const SlicedKernels<T>& best = sliced_kernels<T>();
  const int64_t k = fresh.size(0), count = directions.size(1), n = std::min(window.rows, window.size - k) + k;
  const double *inside = static_cast<const double*>(normal.data_ptr()), *means = inside + 1;
  Tensor value = empty(fresh, {});
  Tensor g_current = needs_grad ? empty(fresh, {k, fresh.size(1)}) : empty(fresh, {0});
  const std::vector<T> bins(means, means + n);
  const auto costs = std::make_unique_for_overwrite<double[]>(count);
  const auto slopes = std::make_unique_for_overwrite<T[]>(needs_grad ? k * count : 0);
  const double weight = 1.0 / count;
  const auto measure = [&](int64_t direction, const Lists<T>& lists, const auto& keys, Exchange<T>& exchange) {
    costs[direction] = best.cost(lists.to, bins.data(), n);
    if (!needs_grad) return;
    const std::vector<int64_t>& ranks = exchange.places_of(keys);
    for (int64_t row = 0; row < k; ++row) {
      slopes[row * count + direction] = best.slope(keys[row], bins[ranks[row]], weight / double(n));
    }
  };
  for_each_direction<T>(window, fresh, directions, true, measure);
  double sum = 0;
  for (int64_t direction = 0; direction < count; ++direction) sum += costs[direction];
  *static_cast<T*>(value.data_ptr()) = T(*inside + sum / count);
  if (needs_grad) {
    const Matrix<T> all{slopes.get(), k, count, count, 1};
    for (int64_t row = 0; row < k; row += best.lanes) {
      best.spread(all, matrix<T>(directions), row, false, static_cast<T*>(g_current.data_ptr()));
    }
  }
  return {std::move(value), std::move(g_current)};
}

template <class T>
void push_sorted(const SortedWindow& window, const Tensor& fresh, const Tensor& directions, bool evaluated) {
  const int64_t k = fresh.size(0);
  const auto store = [&](int64_t, const Lists<T>& lists, const auto& keys, const Exchange<T>&) {
    for (int64_t row = 0; row < k; ++row) lists.slots[(window.head + row) % window.size] = keys[row];
  };
  for_each_direction<T>(window, fresh, directions, !evaluated, store);
}

#define MOW_INSTANTIATE(T)                                                                 \
  template std::tuple<Tensor, Tensor> evaluate_sorted<T>(                                  \
      const SortedWindow&, const Tensor&, const Tensor&, const Tensor&, bool);             \
  template void push_sorted<T>(const SortedWindow&, const Tensor&, const Tensor&, bool);
MOW_INSTANTIATE(float)
MOW_INSTANTIATE(double)
#undef MOW_INSTANTIATE

}  // namespace mow::cpu
