// Greedy k-centre, equation (1) of mow_kernels/reference/k_center.py: no matrix of distances. One launch for all rounds: over
// a small sample by a team of blocks, over a large one by as many as the device runs at once.
//
// A round begins by choosing the farthest of the rows that the blocks of the round before found, and ends by finding
// each block's own. Nothing comes back to the host in between. Products and sums are rounded one by one, in the order of
// the columns, so that all backends take the same rows.

#include "cuda/k_center.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cuda/block.cuh"

namespace mow::cuda {
namespace {

constexpr int kCoordinates = 1024;         // of a centre that are in shared memory at once
constexpr int64_t kMostRoundBlocks = 512;  // each of them reads what all have found

__device__ inline float square_and_add(float sum, float x) { return __fadd_rn(sum, __fmul_rn(x, x)); }
__device__ inline double square_and_add(double sum, double x) { return __dadd_rn(sum, __dmul_rn(x, x)); }

struct Farthest {
  double distance;  // squared; -1 where there is no row that is no centre
  int64_t row;
};

// The farther of two rows, the lower one of equally far ones.
__device__ inline Farthest farther(const Farthest& a, const Farthest& b) {
  return a.distance > b.distance || (a.distance == b.distance && a.row < b.row) ? a : b;
}

// The farthest row of the block, for all of its threads. A barrier has to come before it is asked again.
__device__ inline Farthest block_farthest(Farthest one, Farthest (&found)[kWarps]) {
  for (int other = 16; other > 0; other /= 2) {
    const double distance = __shfl_xor_sync(0xffffffff, one.distance, other);
    const int64_t row = __shfl_xor_sync(0xffffffff, one.row, other);
    one = farther(one, {distance, row});
  }
  if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = one;
  __syncthreads();
  for (const Farthest& warp : found) one = farther(one, warp);
  return one;
}

// A sample, and what is known of its rows.
template <class T>
struct Cover {
  int64_t count, dim, k;
  T* columns;      // [D, count], a copy
  T* nearest;      // [count], the squared distance of each row to its centre; -1 for the centres
  int32_t* owner;  // [count], the centre, by its place in the selection
};

template <class T>
__global__ void __launch_bounds__(kThreads) cover_begin(
    Rows<T> rows, Cover<T> cover, int32_t owner, int64_t* counts) {
  const int64_t threads = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < cover.count * cover.dim; i += threads) {
    const int64_t row = i % cover.count, d = i / cover.count;
    cover.columns[i] = rows.data[row * rows.row_stride + d * rows.column_stride];
    if (d > 0) continue;
    cover.nearest[row] = T(INFINITY);
    cover.owner[row] = owner;
    if (row < cover.k) counts[row] = 0;
  }
}

// Takes the row `chosen` as centre `taken`; the farthest of this thread's rows, of the rows of block `block` out of
// `blocks`. A row is the same thread's in every round.
template <class T>
__device__ Farthest visit(
    const Cover<T>& cover, int64_t chosen, int64_t taken, int64_t block, int64_t blocks, T* center) {
  Farthest best{-1, 0};
  for (int64_t first = block * kThreads; first < cover.count; first += blocks * kThreads) {
    const int64_t row = first + threadIdx.x;
    T sum = 0;
    for (int64_t from = 0; from < cover.dim; from += kCoordinates) {
      const int here = int(cover.dim - from < kCoordinates ? cover.dim - from : kCoordinates);
      const T* const columns = cover.columns + from * cover.count;
      __syncthreads();
      for (int d = threadIdx.x; d < here; d += kThreads) center[d] = columns[d * cover.count + chosen];
      __syncthreads();
      for (int d = 0; d < here && row < cover.count; ++d) {
        sum = square_and_add(sum, columns[d * cover.count + row] - center[d]);
      }
    }
    if (row >= cover.count) continue;
    T distance = cover.nearest[row];
    if (row == chosen ? distance > 0 : sum < distance) cover.owner[row] = int32_t(taken);
    distance = row == chosen ? T(-1) : sum < distance ? sum : distance;
    cover.nearest[row] = distance;
    if (distance > best.distance) best = {double(distance), row};
  }
  return best;
}

// Rounds [taken, end), of which several take a launch by `launch_together`. The first takes the row `known`, or where that
// is -1, as the others do, the farthest of what the round before found, `before` [blocks]; centre number k is one that is
// given. What a round finds goes to the other of both arrays. Shared memory: the farthest rows of the warps, the centre.
template <class T>
__global__ void __launch_bounds__(kThreads) cover_round(
    Cover<T> cover, int64_t known, int64_t taken, int64_t end, Farthest* before, Farthest* after, int64_t* indices) {
  auto& found = *reinterpret_cast<Farthest(*)[kWarps]>(dynamic_shared());
  T* const center = reinterpret_cast<T*>(&found + 1);
  for (;;) {
    Farthest next{-1, 0};
    for (int64_t block = threadIdx.x; known < 0 && block < gridDim.x; block += kThreads) {
      next = farther(next, before[block]);
    }
    const int64_t chosen = known < 0 ? block_farthest(next, found).row : known;
    if (blockIdx.x == 0 && threadIdx.x == 0 && taken < cover.k) indices[taken] = chosen;

    Farthest best = visit(cover, chosen, taken, blockIdx.x, gridDim.x, center);
    best = block_farthest(best, found);
    if (threadIdx.x == 0) after[blockIdx.x] = best;
    if (++taken >= end) return;
    Grid::sync();
    Farthest* const other = before;
    before = after, after = other, known = -1;
  }
}

// All rounds, by one team; what it found last goes to the first of `after` [blocks]. Shared memory: the farthest rows of
// the warps and of the block, the centre.
template <class T>
__global__ void __launch_bounds__(kThreads) cover_rounds(
    Cover<T> cover, int64_t start, Farthest* after, int64_t blocks, int64_t* indices) {
  auto& found = *reinterpret_cast<Farthest(*)[kWarps]>(dynamic_shared());
  Farthest* const own = &found[0] + kWarps;
  T* const center = reinterpret_cast<T*>(own + 1);
  Farthest best{-1, start};
  for (int64_t taken = 0; taken < cover.k; ++taken) {
    const int64_t chosen = best.row;
    if (Team::rank() == 0 && threadIdx.x == 0) indices[taken] = chosen;
    best = block_farthest(visit(cover, chosen, taken, Team::rank(), Team::size(), center), found);
    if (threadIdx.x == 0) *own = best;
    Team::sync();
    for (int other = 0; other < Team::size(); ++other) best = farther(best, *Team::of(own, other));
    Team::sync();  // all have read before it is written again
  }
  for (int64_t i = threadIdx.x; Team::rank() == 0 && i < blocks; i += kThreads) {
    after[i] = i == 0 ? best : Farthest{-1, 0};
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) cover_finish(
    Cover<T> cover, const Farthest* before, int64_t* counts, T* squared_radius) {
  __shared__ Farthest found[kWarps];
  Farthest best{-1, 0};
  for (int64_t block = threadIdx.x; block < gridDim.x; block += kThreads) best = farther(best, before[block]);
  best = block_farthest(best, found);
  if (blockIdx.x == 0 && threadIdx.x == 0) *squared_radius = T(best.distance > 0 ? best.distance : 0);
  for (int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x; row < cover.count;
       row += int64_t(gridDim.x) * kThreads) {
    if (cover.owner[row] >= cover.k) continue;
    atomicAdd(reinterpret_cast<unsigned long long*>(counts + cover.owner[row]), 1ull);  // integers: in any order
  }
}

}  // namespace

// The farthest rows of two rounds, the copy of the sample, the distances and the owners.
template <class T>
int64_t k_center_scratch(int64_t count, int64_t dim) {
  const int64_t a_row = (dim + 1) * int64_t(sizeof(T)) + int64_t(sizeof(int32_t));
  return 2 * kMostRoundBlocks * int64_t(sizeof(Farthest)) + count * a_row;
}

template <class T>
cudaError_t k_center(
    const Rows<T>& rows, int64_t dim, int64_t k, int64_t start, const int64_t* given, int64_t given_count,
    const Centers<T>& centers, void* scratch, cudaStream_t stream) {
  auto* before = static_cast<Farthest*>(scratch);
  Farthest* after = before + kMostRoundBlocks;
  T* const columns = reinterpret_cast<T*>(after + kMostRoundBlocks);
  T* const nearest = columns + rows.count * dim;
  const Cover<T> cover{rows.count, dim, k, columns, nearest, reinterpret_cast<int32_t*>(nearest + rows.count)};
  const int64_t wanted = (rows.count + kThreads - 1) / kThreads;
  const int64_t shared = kWarps * int64_t(sizeof(Farthest)) + std::min<int64_t>(dim, kCoordinates) * int64_t(sizeof(T));
  const int64_t most = std::clamp<int64_t>(most_together(cover_round<T>, kThreads, shared), 1, kMostRoundBlocks);
  const dim3 blocks(unsigned(std::min(wanted, most)));
  auto failed = launch(
      cover_begin<T>, blocks, kThreads, 0, 1, stream, rows, cover, int32_t(given_count > 0 ? k : 0), centers.counts);
  const auto run_rounds = [&](int64_t known, int64_t taken, int64_t end) {
    if (failed != cudaSuccess) return;
    failed = end - taken > 1
        ? launch_together(
              cover_round<T>, blocks, kThreads, shared, stream, cover, known, taken, end, before, after, centers.indices)
        : launch(
              cover_round<T>, blocks, kThreads, shared, 1, stream, cover, known, taken, end, before, after, centers.indices);
    if ((end - taken) % 2 == 1) std::swap(before, after);
  };
  for (int64_t i = 0; i < given_count; ++i) run_rounds(given[i], k, k + 1);  // they are known on the host alone
  const int64_t known = given_count > 0 ? -1 : start;
  // A team takes less for a round than a device whose blocks wait for each other does.
  static const int64_t most_numbers = threshold("MOW_CUDA_SINGLE_COVER", 1 << 15);
  static const bool together = threshold("MOW_CUDA_TOGETHER", 1) != 0;
  const int64_t team = team_size(wanted);
  if (failed == cudaSuccess && given_count == 0 && rows.count * dim <= most_numbers * team) {
    failed = launch(
        cover_rounds<T>, dim3(unsigned(team)), kThreads, shared + int64_t(sizeof(Farthest)), int(team), stream, cover, start,
        before, int64_t(blocks.x), centers.indices);
  } else {
    const int64_t rounds = together ? k : 1;  // a launch
    for (int64_t taken = 0; taken < k; taken += rounds) run_rounds(taken == 0 ? known : -1, taken, taken + rounds);
  }
  if (failed != cudaSuccess) return failed;
  return launch(
      cover_finish<T>, blocks, kThreads, 0, 1, stream, cover, static_cast<const Farthest*>(before), centers.counts,
      centers.squared_radius);
}

template int64_t k_center_scratch<float>(int64_t, int64_t);
template int64_t k_center_scratch<double>(int64_t, int64_t);
template cudaError_t k_center(
    const Rows<float>&, int64_t, int64_t, int64_t, const int64_t*, int64_t, const Centers<float>&, void*, cudaStream_t);
template cudaError_t k_center(
    const Rows<double>&, int64_t, int64_t, int64_t, const int64_t*, int64_t, const Centers<double>&, void*, cudaStream_t);

}  // namespace mow::cuda
