// The distances of csrc/cuda/pairwise.cuh over a window that is kept from step to step with the sums over its own pairs, as
// csrc/cpu/running.h says: each row has the sum over the rows newer than it, and a pair of a latent and a prior row belongs to
// the older of the two (to the latent, of the rows of one slot).
//
// A push writes rows and no sums. The next measurement passes over the window once, a thread a row, for the rows that are
// measured now and for those that were pushed since the last one, which it adds to the sums. Where the ring stands is in
// device memory, so that a CUDA graph can repeat a step. What the blocks find is added up by the last of them, in a fixed
// order.
#pragma once

#include "common/distance.h"
#include "common/radial_values.h"
#include "cuda/block.cuh"
#include "cuda/running.h"

namespace mow::cuda {

constexpr int kNews = 4;  // rows that a pass compares with a row at a time

// How a column of the pass, or a row that it is compared with, stands in the order of the rows: oldest 0, newest size - 1, then
// the measured ones.
struct Standing {
  bool prior, current;
  int64_t position;
  bool there;
};

template <class T, Family family>
struct RunningPass {
  KeptRows<T> latents, prior;
  Rows<T> current, drawn;  // drawn: the new prior rows
  int64_t size, rows, dim;
  RadialValues<T, family> f;
  RadialValues<double, RadialValues<T, family>::kClosedForm> g;  // where there is no prior sample
  double constant, zz, vv, zv;
  double *totals, *gradients;  // [blocks], [blocks, k, D]
  Results<T> results;

  MOW_HD bool sampled() const { return prior.rows != nullptr; }
  MOW_HD int64_t width() const { return latents.slots + current.count; }  // columns of a window
};

template <class T, Family family>
__global__ void __launch_bounds__(kThreads) running_pass(const __grid_constant__ RunningPass<T, family> p) {
  __shared__ T news[kNews][kDepth];
  __shared__ T slopes[kNews][kThreads];
  __shared__ double sums[kWarps];
  __shared__ double parts[kWarps][32];
  __shared__ bool last;
  const RingState& state = *p.latents.state;
  const int64_t head = state.head, present = state.count, pending = state.pending;
  const int64_t k = p.current.count, dim = p.dim, per_window = pending + k, windows = p.sampled() ? 2 : 1;
  const int64_t columns = windows * p.width(), listed = windows * per_window;
  const bool needs_grad = p.results.g_current != nullptr;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  double* const gradient = p.gradients + int64_t(blockIdx.x) * k * dim;

  const auto kept = [&](bool prior) { return prior ? p.prior : p.latents; };
  const auto line = [&](const Standing& at) -> Line<T> {
    if (!at.there) return {nullptr, 0};
    if (at.current) return line_of(at.prior ? p.drawn : p.current, at.position - p.size);
    int64_t slot = head + at.position;
    slot -= slot < p.size ? 0 : p.size;
    return {kept(at.prior).rows + slot, p.latents.slots};
  };
  // The rows that were pushed since the last pass, then the measured ones; of the latents, then of the prior.
  const auto listed_at = [&](int64_t i) -> Standing {
    const int64_t within = i % per_window;
    return {i >= per_window, within >= pending, p.size - pending + within, i < listed};
  };
  const auto column_at = [&](int64_t i) -> Standing {
    const bool prior = i >= p.width();
    const int64_t within = prior ? i - p.width() : i;
    if (within >= p.latents.slots) return {prior, true, p.size + within - p.latents.slots, i < columns};
    const int64_t after = within - head, position = after < 0 ? after + p.size : after;
    return {prior, false, position, i < columns && within < p.size && position >= p.size - present};
  };

  double total = 0;
  for (int64_t first = int64_t(blockIdx.x) * kThreads; first < columns; first += int64_t(gridDim.x) * kThreads) {
    const Standing own = column_at(first + threadIdx.x);
    const Line<T> x = line(own);
    const bool measured = own.there && own.position >= p.size - p.rows;
    const int64_t slot = (first + threadIdx.x) % p.width();
    double within = 0, across = 0, new_within = 0, new_across = 0;
    if (own.there && !own.current) within = kept(own.prior).own[slot], across = kept(own.prior).other[slot];

    for (int64_t start = 0; start < listed; start += kNews) {
      T r[kNews] = {};
      for (int64_t from = 0; from < dim; from += kDepth) {
        const int depth = int(dim - from < kDepth ? dim - from : kDepth);
        __syncthreads();
        for (int i = threadIdx.x; i < kNews * kDepth; i += kThreads) {
          const Line<T> other = line(listed_at(start + i / kDepth));
          const int d = i % kDepth;
          news[i / kDepth][d] = other.data != nullptr && d < depth ? other.data[(from + d) * other.stride] : T(0);
        }
        __syncthreads();
        if (!own.there) continue;
#pragma unroll 8
        for (int d = 0; d < depth; ++d) {
          const T coordinate = x.data[(from + d) * x.stride];
#pragma unroll
          for (int i = 0; i < kNews; ++i) {
            const T difference = coordinate - news[i][d];
            r[i] += difference * difference;
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kNews; ++i) {
        const T one[1] = {r[i]};  // alone, so that its bits do not depend on the rows beside it
        T value[1], slope[1];
        p.f.template operator()<true>(one, value, slope);
        const Standing other = listed_at(start + i);
        const bool pair = own.there && other.there, same = own.prior == other.prior;
        const bool is_older = own.position < other.position ||
                              (own.position == other.position && !own.prior && other.prior);
        if (pair && is_older) {
          double& sum = other.current ? (same ? new_within : new_across) : (same ? within : across);
          sum += double(value[0]);
        }
        const bool itself = same && own.position == other.position;
        const bool pulls = pair && measured && other.current && !other.prior && !itself;
        slopes[i][threadIdx.x] = pulls ? slope[0] * T(same ? 2 : 1) : T(0);
      }
      if (!needs_grad || start + kNews <= pending || start >= per_window) continue;
      __syncthreads();
      for (int64_t d = warp; d < dim; d += kWarps) {
        T sum[kNews] = {};
        T weighted[kNews] = {};
        for (int column = lane; column < kThreads; column += 32) {
          const Standing at = column_at(first + column);
          const Line<T> y = line(at);
          const T coordinate = y.data != nullptr ? y.data[d * y.stride] : T(0);
#pragma unroll
          for (int i = 0; i < kNews; ++i) {
            const int64_t row = start + i - pending;
            if (row < 0 || row >= k) continue;
            const T center = p.current.data[row * p.current.row_stride + d * p.current.column_stride];
            (at.prior ? weighted[i] : sum[i]) += slopes[i][column] * (center - coordinate);
          }
        }
#pragma unroll
        for (int i = 0; i < kNews; ++i) {
          double g = 2 * (p.zz * double(sum[i]) + p.zv * double(weighted[i]));
          for (int other = 16; other > 0; other /= 2) g += __shfl_xor_sync(0xffffffff, g, other);
          const int64_t row = start + i - pending;
          if (lane != 0 || row < 0 || row >= k) continue;
          double& place = gradient[row * dim + d];
          place = (first == int64_t(blockIdx.x) * kThreads ? 0 : place) + g;
        }
      }
    }

    if (!p.sampled() && own.there && (own.current || own.position >= p.size - pending)) {
      double norm[1] = {0}, value[1], slope[1];
      for (int64_t d = 0; d < dim; ++d) norm[0] += double(x.data[d * x.stride]) * double(x.data[d * x.stride]);
      p.g.template operator()<false>(norm, value, slope);
      across = value[0];
    }
    if (own.there && !own.current && pending > 0) {
      kept(own.prior).own[slot] = within;
      kept(own.prior).other[slot] = across;
    }
    if (measured) total += 2 * (own.prior ? p.vv : p.zz) * (within + new_within) + p.zv * (across + new_across);
  }

  total = block_sum(total, sums);
  if (threadIdx.x == 0) {  // since the barrier of that sum all threads have read the state and written their gradients
    p.totals[blockIdx.x] = total;
    __threadfence();
    last = atomicAdd(&p.latents.state->ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();

  double sum = 0;
  for (int64_t block = threadIdx.x; block < gridDim.x; block += kThreads) sum += p.totals[block];
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) {
    *p.results.value = T(p.constant + sum);
    p.latents.state->ticket = 0;
    p.latents.state->pending = 0;
  }
  for (int64_t first = 0; needs_grad && first < k; first += kWarps) {  // a warp a row, then all of them each row
    const int rows = int(k - first < kWarps ? k - first : kWarps);
    double factor = 0;
    if (!p.sampled() && warp < rows) {
      const Line<T> x = line_of(p.current, first + warp);
      double norm[1] = {0}, value[1], slope[1];
      for (int64_t d = lane; d < dim; d += 32) norm[0] += double(x.data[d * x.stride]) * double(x.data[d * x.stride]);
      for (int other = 16; other > 0; other /= 2) norm[0] += __shfl_xor_sync(0xffffffff, norm[0], other);
      p.g.template operator()<true>(norm, value, slope);
      factor = 2 * p.zv * slope[0];
    }
    __syncthreads();  // the sums are not read any more
    if (lane == 0) sums[warp] = factor;
    for (int i = 0; i < rows; ++i) {
      const int64_t row = first + i;
      const Line<T> x = line_of(p.current, row);
      for (int64_t start = 0; start < dim; start += 32) {
        sum_arrays(p.gradients + row * dim, gridDim.x, k * dim, start, dim, parts, [&](int64_t d, double sum) {
          p.results.g_current[row * dim + d] = T(sum + sums[i] * double(x.data[d * x.stride]));
        });
      }
    }
  }
}

// Bytes of scratch, and the blocks of a pass: its gradients take no more than some 16 MiB.
struct RunningPlan {
  int64_t blocks, scratch;

  RunningPlan(int64_t size, int64_t k, int64_t dim, bool sampled) {
    const int64_t columns = (sampled ? 2 : 1) * (kept_slots(size) + k);
    blocks = std::clamp<int64_t>((columns + kThreads - 1) / kThreads, 1, std::max<int64_t>(32, (1 << 21) / (k * dim)));
    scratch = blocks * (1 + k * dim) * int64_t(sizeof(double));
  }
};

template <Family family, class T>
cudaError_t run_running(
    const PairwiseDistance<T>& distance, const RunningCall<T>& call, const Results<T>& results, void* scratch,
    cudaStream_t stream) {
  const RunningPlan plan(call.size, call.current.count, call.dim, call.prior.rows != nullptr);
  RunningPass<T, family> p{};
  p.latents = call.latents, p.prior = call.prior, p.current = call.current, p.drawn = call.drawn;
  p.size = call.size, p.rows = call.rows, p.dim = call.dim, p.results = results;
  p.constant = distance.constant, p.zz = distance.zz, p.vv = distance.vv, p.zv = distance.zv;
  p.totals = static_cast<double*>(scratch), p.gradients = p.totals + plan.blocks;
  if (!p.f.copy(distance.f.radial()) || (distance.g && !p.g.copy(distance.g->radial()))) return cudaErrorInvalidValue;
  return launch(running_pass<T, family>, dim3(unsigned(plan.blocks)), kThreads, 0, 1, stream, p);
}

}  // namespace mow::cuda
