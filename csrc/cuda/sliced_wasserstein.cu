// Sliced-Wasserstein distance, equations (1) and (2) of mow_kernels/reference/sliced_wasserstein.py.
//
// Projections are sorted together with their rows, so that ties go by row and the sorted array tells the rank of every
// current row. Which way:
//   - small windows (Plan::single): one launch; a team of blocks shares the directions, each block sorts several at a time
//     by a bitonic network in shared memory.
//   - large ones: runs of kRun entries by the same network, then merged pairwise, where an entry finds its place by binary
//     search in the other run. No two entries are equal, so no merge has a tie to break. log2(n / kRun) passes over
//     the entries; up to 4096 rows (2048 in double precision) there is none. From so many rows on that these are more
//     passes than by eight bits at a time, a radix sort (radix.h) over the entries of all directions.
// Draws are divided by their norms as they are projected on, or in a launch of its own where there are several anyway.
// The gradient alone of few current rows (counts_ranks) sorts no window: it counts the entries below theirs.

#include "cuda/radix.h"
#include "cuda/sliced_wasserstein.cuh"

namespace mow::cuda {
namespace {

// A sample or N(0, I), projected and sorted: entries [directions, count], or the means of the normal's quantile bins.
template <class T>
struct Sorted {
  const Entry<T>* entries;
  int64_t count;
  const double* bins;
  bool packed = false;

  __device__ Entry<T> entry(int64_t direction, int64_t rank) const {
    const Entry<T> entry = entries[direction * count + rank];
    return packed ? Packed<T>::entry(entry) : entry;
  }

  __device__ T value(int64_t direction, int64_t rank) const {
    return bins ? T(bins[rank]) : entry(direction, rank).value();
  }
};

// Whether the ranks of k current rows are counted where no value is wanted: each takes a pass over the window.
MOW_HD bool counts_ranks(int64_t k) { return k <= 64; }

// The norm of a draw, for all lanes of the warp.
template <class T>
__device__ T warp_norm(const Line<T>& draw, int64_t dim) {
  T squares = 0;
  for (int64_t d = threadIdx.x % 32; d < dim; d += 32) squares += draw.data[d * draw.stride] * draw.data[d * draw.stride];
  for (int other = 16; other > 0; other /= 2) squares += __shfl_xor_sync(0xffffffff, squares, other);
  return norm_of_draw(squares);
}

// The row of a rank in one direction: the cost and, for a current row, the slope, both times `whole`.
template <class T>
__device__ double match_rank(
    const Sliced<T>& p, const Coupling& coupling, int64_t rank, T x, const Sorted<T>& prior, int64_t direction,
    bool needs_slope, double& slope) {
  const PowerCost cost{p.p};
  double sum = 0;
  slope = 0;
  coupling.for_steps(rank, [&](int64_t j, double width) {
    const double difference = x - prior.value(direction, j);
    sum += width * cost.cost(difference);
    if (needs_slope) slope += width * cost.slope(difference);
  });
  return sum;
}

// A whole small window by one team, `group` directions at a time. Shared memory: sums, the block's gradient [k, D], the
// entries of the window and of the prior [group, size] each, the norms of the directions [group], the slopes [group, k].
template <class T>
__global__ void __launch_bounds__(kThreads) sliced_window(
    const __grid_constant__ Sliced<T> p, Coupling coupling, int group, int size) {
  const Samples<T>& samples = p.samples;
  const int n = int(samples.window()), m = int(samples.prior.count), h = int(samples.history.count), k = n - h;
  const int64_t dim = samples.dim, count = p.directions.count;
  const bool needs_grad = p.results.g_current != nullptr;
  const bool counting = p.results.value == nullptr && counts_ranks(k);

  unsigned char* const memory = dynamic_shared();
  auto& sums = *reinterpret_cast<double(*)[kWarps]>(memory);
  double* const gradient = reinterpret_cast<double*>(memory + sizeof sums);
  auto* const window = reinterpret_cast<Entry<T>*>(gradient + (needs_grad ? (k * dim + 1) / 2 * 2 : 0));
  Entry<T>* const prior = window + group * size;
  T* const norms = reinterpret_cast<T*>(prior + (m > 0 ? group * size : 0));
  T* const slopes = norms + group;

  const Sequence<T> rows{samples.history, samples.current}, prior_rows{samples.prior, Rows<T>{}};
  const double weight = 1 / (double(coupling.whole) * double(count));
  const Sorted<T> sorted{prior, size, m > 0 ? nullptr : p.bins + 1};

  for (int64_t i = threadIdx.x; needs_grad && i < k * dim; i += kThreads) gradient[i] = 0;
  double total = 0;
  const int64_t end = count * (Team::rank() + 1) / Team::size();
  for (int64_t first = count * Team::rank() / Team::size(); first < end; first += group) {
    const int here = int(end - first < group ? end - first : group);
    const int samples_here = m > 0 ? 2 : 1;
    for (int direction = threadIdx.x / 32; direction < here; direction += kWarps) {
      const T norm = p.drawn ? warp_norm(line_of(p.directions, first + direction), dim) : T(1);
      if (threadIdx.x % 32 == 0) norms[direction] = norm;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < samples_here * group * size; i += kThreads) {
      const int row = i % size, direction = i / size % group;
      const bool of_window = i / size < group;
      Line<T> line{nullptr, 0};
      if (direction < here) line = of_window ? rows.line(row) : prior_rows.line(row);
      Entry<T> entry = Entry<T>::last();
      if (line.data != nullptr) {
        const Line<T> theta = line_of(p.directions, first + direction);
        T sum = 0;
        for (int64_t start = 0; start < dim; start += kDepth) {
          T run = 0;
          for (int64_t d = start; d < dim && d < start + kDepth; ++d) {
            run += line.data[d * line.stride] * theta.data[d * theta.stride];
          }
          sum += run;
        }
        entry = Entry<T>::of(sum / norms[direction], uint32_t(row));
      }
      window[i] = entry;
    }
    if (counting) {
      sort_runs(prior, size, m > 0 ? group * size : 0, kThreads);
      for (int i = threadIdx.x / 32; i < here * k; i += kWarps) {
        const Entry<T>* const entries = window + i / k * size;
        const Entry<T> entry = entries[h + i % k];
        int rank = 0;
        for (int row = threadIdx.x % 32; row < n; row += 32) rank += entries[row] < entry;
        for (int other = 16; other > 0; other /= 2) rank += __shfl_xor_sync(0xffffffff, rank, other);
        double slope;
        match_rank(p, coupling, rank, entry.value(), sorted, i / k, true, slope);
        if (threadIdx.x % 32 == 0) slopes[i] = T(weight * slope) / norms[i / k];
      }
    } else {
      sort_runs(window, size, samples_here * group * size, kThreads);
    }

    for (int i = threadIdx.x; !counting && i < here * n; i += kThreads) {
      const int direction = i / n, rank = i % n;
      const Entry<T> entry = window[direction * size + rank];
      const int row = int(entry.row());
      double slope;
      total += weight * match_rank(p, coupling, rank, entry.value(), sorted, direction, needs_grad && row >= h, slope);
      if (needs_grad && row >= h) slopes[direction * k + row - h] = T(weight * slope) / norms[direction];
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; needs_grad && i < k * dim; i += kThreads) {
      const int64_t row = i / dim, d = i % dim;
      double sum = 0;
      for (int direction = 0; direction < here; ++direction) {
        const Line<T> theta = line_of(p.directions, first + direction);
        sum += double(slopes[direction * k + row]) * double(theta.data[d * theta.stride]);
      }
      gradient[i] += sum;
    }
  }
  block_results(total, m > 0 ? 0 : p.bins[0], needs_grad ? gradient : nullptr, k * dim, sums, p.results);
}

// Draws -> directions [L, D], a warp each.
template <class T>
__global__ void __launch_bounds__(kThreads) normalise(Rows<T> draws, int64_t dim, T* directions) {
  const int64_t direction = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (direction >= draws.count) return;
  const Line<T> draw = line_of(draws, direction);
  const T norm = warp_norm(draw, dim);
  for (int64_t d = threadIdx.x % 32; d < dim; d += 32) directions[direction * dim + d] = draw.data[d * draw.stride] / norm;
}

// Adds to ranks [directions, k] how many of the rows' entries, which are stored nowhere, are below current [directions, k].
template <class T>
__global__ void __launch_bounds__(kThreads) count_ranks(
    Sequence<T> rows, Sequence<T> directions, int64_t dim, const Entry<T>* current, int64_t k, unsigned* ranks) {
  const int64_t count = rows.count();
  project_tile(rows, directions, dim, [&](int64_t row, int64_t direction, const auto& sums) {
    const bool there = direction < directions.count();
    for (int64_t i = 0; i < k; ++i) {
      const Entry<T> entry = there ? current[direction * k + i] : Entry<T>{};
      unsigned below = 0;
      int64_t at = row;
      for (const T sum : sums) {
        below += at < count && Entry<T>::of(sum, uint32_t(at)) < entry;
        ++at;
      }
      for (int other = 8; other > 0; other /= 2) below += __shfl_xor_sync(0xffffffff, below, other);
      if (there && threadIdx.x % 16 == 0 && below > 0) atomicAdd(ranks + direction * k + i, below);  // in any order
    }
  });
}

// slopes [directions, k] of the current rows, by their ranks.
template <class T>
__global__ void __launch_bounds__(kThreads) match_current(
    const __grid_constant__ Sliced<T> p, Coupling coupling, const Entry<T>* current, const unsigned* ranks, Sorted<T> prior,
    T* slopes) {
  const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x, direction = blockIdx.y, k = p.samples.current.count;
  if (row >= k) return;
  const int64_t at = direction * k + row;
  double slope;
  match_rank(p, coupling, ranks[at], current[at].value(), prior, direction, true, slope);
  slopes[at] = T(1 / (double(coupling.whole) * double(p.directions.count)) * slope);
}

// Ranks blockIdx.x * kThreads... of direction blockIdx.y: their part of the mean cost -> totals [directions, blocks], and
// the slopes [directions, k].
template <class T>
__global__ void __launch_bounds__(kThreads) match_ranks(
    const __grid_constant__ Sliced<T> p, Coupling coupling, Sorted<T> window, Sorted<T> prior, double* totals, T* slopes) {
  __shared__ double sums[kWarps];
  const int64_t rank = int64_t(blockIdx.x) * kThreads + threadIdx.x, direction = blockIdx.y;
  const int64_t h = p.samples.history.count, k = p.samples.current.count;
  const bool needs_grad = p.results.g_current != nullptr;
  const double weight = 1 / (double(coupling.whole) * double(p.directions.count));
  double total = 0, slope;
  if (rank < window.count) {
    const Entry<T> entry = window.entry(direction, rank);
    const int64_t row = entry.row();
    total = weight * match_rank(p, coupling, rank, entry.value(), prior, direction, needs_grad && row >= h, slope);
    if (needs_grad && row >= h) slopes[direction * k + row - h] = T(weight * slope);
  }
  total = block_sum(total, sums);
  if (threadIdx.x == 0) totals[direction * gridDim.x + blockIdx.x] = total;
}

// How a problem is run. But for the team it depends on the sizes alone and not on the device.
template <class T>
struct Plan {
  bool single;  // one launch
  int64_t team, group, size, shared;  // there
  int64_t chunk;                      // directions whose entries are held at once
  bool counting;                      // there is no window to be sorted
  int64_t window, prior, totals, slopes, units, ranks, radix, scratch;  // bytes; entries to be sorted are there twice

  explicit Plan(const Sliced<T>& p) : Plan() {
    const int64_t n = p.samples.window(), m = p.samples.prior.count, k = p.samples.current.count, dim = p.samples.dim;
    const int64_t count = p.directions.count, entry = sizeof(Entry<T>);
    const bool needs_grad = p.results.g_current != nullptr;
    // A single block takes some ten microseconds for as much; beyond, several launches spread it over the device.
    static const int64_t most_entries = threshold("MOW_CUDA_SINGLE_SLICED", 16384);
    if (n <= 256 && m <= 256 && (n + m) * count <= most_entries && (n + m) * count * dim <= 1 << 20) {
      size = power_of_two_from(std::max(n, m));
      const int64_t per_direction = (m > 0 ? 2 : 1) * size * entry + (needs_grad ? k + 1 : 1) * int64_t(sizeof(T));
      team = team_size(count);
      group = std::clamp<int64_t>((32 << 10) / per_direction, 1, ceil_divide(count, team));
      const int64_t gradient = needs_grad ? (k * dim + 1) / 2 * 2 * int64_t(sizeof(double)) : 0;
      shared = int64_t(sizeof(double)) * kWarps + gradient + group * per_direction;
      single = shared <= kMostShared;
      if (single) return;
    }
    chunk = std::clamp<int64_t>((int64_t{1} << 28) / ((n + m) * entry), 1, std::min(count, Packed<T>::kMostDirections));
    counting = p.results.value == nullptr && counts_ranks(k);
    window = chunk * (counting ? k : n) * entry;
    prior = chunk * m * entry;
    totals = counting ? 0 : ceil_divide(n, kThreads) * count * int64_t(sizeof(double));
    slopes = needs_grad ? chunk * k * int64_t(sizeof(T)) : 0;
    units = p.drawn ? count * dim * int64_t(sizeof(T)) : 0;
    ranks = counting ? chunk * k * int64_t(sizeof(unsigned)) : 0;
    radix = std::max(counting ? 0 : radix_bytes(n), radix_bytes(m));
    scratch = (counting ? 1 : 2) * window + 2 * prior + totals + slopes + units + ranks + radix;
  }

  // Whether so many rows are sorted so.
  static bool by_radix(int64_t rows) {
    // From here on a sort of runs and five merges read and write more than five passes of eight bits do.
    static const int64_t least_rows = threshold("MOW_CUDA_RADIX", (16 * int64_t(kRun<T>)) + 1);
    return Packed<T>::kFits && rows >= least_rows && rows <= Packed<T>::kMostRows;
  }

 private:
  Plan() = default;

  int64_t radix_bytes(int64_t rows) const {
    return by_radix(rows) ? std::max<int64_t>(0, radix_scratch(chunk * rows, Packed<T>::kRowBits, 64)) : 0;
  }
};

// Projects a sample on directions and sorts; the result lies in `entries` or in `spare`.
template <class T>
cudaError_t sort_projections(
    const Sequence<T>& rows, int64_t count, const Sequence<T>& directions, int64_t here, int64_t dim, Entry<T>* entries,
    Entry<T>* spare, void* scratch, int64_t bytes, Sorted<T>& sorted, cudaStream_t stream) {
  const bool packed = Plan<T>::by_radix(count);
  auto failed = launch(
      project<T>, project_blocks(count, here), kThreads, 0, 1, stream, rows, directions, dim, int64_t{0}, entries,
      static_cast<unsigned*>(nullptr), packed);
  if (failed == cudaSuccess && !packed) failed = sort_entries(entries, spare, count, here, stream);
  if (failed == cudaSuccess && packed) {
    int end = Packed<T>::kRowBits + Packed<T>::kKeyBits;
    while ((int64_t{1} << (end - Packed<T>::kRowBits - Packed<T>::kKeyBits)) < here) ++end;
    auto *words = reinterpret_cast<uint64_t*>(entries), *other = reinterpret_cast<uint64_t*>(spare);
    failed = radix_sort(words, other, here * count, Packed<T>::kRowBits, end, scratch, bytes, stream);
    entries = reinterpret_cast<Entry<T>*>(words);
  }
  sorted = {entries, count, nullptr, packed};
  return failed;
}

template <class T>
cudaError_t run_large(Sliced<T> p, const Plan<T>& plan, unsigned char* scratch, cudaStream_t stream) {
  const int64_t n = p.samples.window(), m = p.samples.prior.count, k = p.samples.current.count, dim = p.samples.dim;
  const int64_t count = p.directions.count;
  const auto take = [&](int64_t bytes) {
    unsigned char* const taken = scratch;
    scratch += bytes;
    return taken;
  };
  Entry<T>* windows[2] = {};
  Entry<T>* priors[2];
  for (int i = 0; i < (plan.counting ? 1 : 2); ++i) windows[i] = reinterpret_cast<Entry<T>*>(take(plan.window));
  for (auto& prior : priors) prior = reinterpret_cast<Entry<T>*>(take(plan.prior));
  auto* const totals = reinterpret_cast<double*>(take(plan.totals));
  auto* const slopes = reinterpret_cast<T*>(take(plan.slopes));
  auto* const units = reinterpret_cast<T*>(take(plan.units));
  auto* const ranks = reinterpret_cast<unsigned*>(take(plan.ranks));
  void* const radix = take(plan.radix);
  if (p.drawn) {
    const dim3 blocks(unsigned(ceil_divide(count, kWarps)));
    const auto failed = launch(normalise<T>, blocks, kThreads, 0, 1, stream, p.directions, dim, units);
    if (failed != cudaSuccess) return failed;
    p.directions = {units, count, dim, 1};
  }

  const Rows<T> none{};
  const Sequence<T> rows{p.samples.history, p.samples.current};
  const Coupling coupling(n, m > 0 ? m : n);
  const int64_t blocks = ceil_divide(n, kThreads);
  for (int64_t first = 0; first < count; first += plan.chunk) {
    const int64_t here = std::min(plan.chunk, count - first);
    Rows<T> some = p.directions;
    some.data += first * some.row_stride;
    some.count = here;
    const Sequence<T> directions{some, none};
    Sorted<T> window{}, prior{nullptr, n, m > 0 ? nullptr : p.bins + 1};
    auto failed = plan.counting
        ? launch(
              project<T>, project_blocks(k, here), kThreads, 0, 1, stream, Sequence<T>{p.samples.current, none},
              directions, dim, p.samples.history.count, windows[0], ranks, false)
        : sort_projections<T>(
              rows, n, directions, here, dim, windows[0], windows[1], radix, plan.radix, window, stream);
    if (failed == cudaSuccess && plan.counting) {
      failed = launch(
          count_ranks<T>, project_blocks(n, here), kThreads, 0, 1, stream, rows, directions, dim,
          static_cast<const Entry<T>*>(windows[0]), k, ranks);
    }
    if (failed == cudaSuccess && m > 0) {
      failed = sort_projections<T>(
          {p.samples.prior, none}, m, directions, here, dim, priors[0], priors[1], radix, plan.radix, prior, stream);
    }
    if (failed != cudaSuccess) return failed;
    failed = plan.counting
        ? launch(
              match_current<T>, dim3(unsigned(ceil_divide(k, kThreads)), unsigned(here)), kThreads, 0, 1, stream, p,
              coupling, static_cast<const Entry<T>*>(windows[0]), static_cast<const unsigned*>(ranks), prior, slopes)
        : launch(
              match_ranks<T>, dim3(unsigned(blocks), unsigned(here)), kThreads, 0, 1, stream, p, coupling, window, prior,
              totals + first * blocks, slopes);
    if (failed == cudaSuccess && p.results.g_current) {
      failed = launch(
          spread<T>, dim3(unsigned(ceil_divide(k * dim, kThreads))), kThreads, 0, 1, stream, p,
          static_cast<const T*>(slopes), first, here);
    }
    if (failed != cudaSuccess) return failed;
  }
  if (p.results.value == nullptr) return cudaSuccess;
  return launch(
      sliced_finish<T>, dim3(1), kThreads, 0, 1, stream, static_cast<const double*>(totals), blocks * count,
      m > 0 ? nullptr : p.bins, p.results);
}

}  // namespace

template <class T>
int64_t sliced_scratch(const Sliced<T>& p) {
  return Plan<T>(p).scratch;
}

template <class T>
cudaError_t sliced_wasserstein(const Sliced<T>& p, void* scratch, cudaStream_t stream) {
  const Plan<T> plan(p);
  if (!plan.single) return run_large(p, plan, static_cast<unsigned char*>(scratch), stream);
  return launch(
      sliced_window<T>, dim3(unsigned(plan.team)), kThreads, plan.shared, int(plan.team), stream, p,
      Coupling(p.samples.window(), p.samples.prior.count > 0 ? p.samples.prior.count : p.samples.window()),
      int(plan.group), int(plan.size));
}

template int64_t sliced_scratch(const Sliced<float>&);
template int64_t sliced_scratch(const Sliced<double>&);
template cudaError_t sliced_wasserstein(const Sliced<float>&, void*, cudaStream_t);
template cudaError_t sliced_wasserstein(const Sliced<double>&, void*, cudaStream_t);

}  // namespace mow::cuda
