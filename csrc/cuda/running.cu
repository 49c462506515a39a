// What the distances over a kept window have in common.

#include "cuda/running.cuh"

namespace mow::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) push_rows(const __grid_constant__ RunningCall<T> p, int64_t first) {
  __shared__ bool last;
  RingState* const state = p.latents.state;
  const int64_t head = p.rows == 0 ? first : state->head, k = p.current.count, windows = p.prior.rows != nullptr ? 2 : 1;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < windows * k * p.dim; i += int64_t(gridDim.x) * kThreads) {
    const bool prior = i >= k * p.dim;
    const int64_t row = i % k, d = i / k % p.dim, slot = (head + row) % p.size;
    const Line<T> line = line_of(prior ? p.drawn : p.current, row);
    const KeptRows<T>& kept = prior ? p.prior : p.latents;
    kept.rows[d * kept.slots + slot] = line.data[d * line.stride];
    if (d == 0) kept.own[slot] = kept.other[slot] = 0;
  }
  __syncthreads();  // all threads have read the head
  if (threadIdx.x == 0) last = atomicAdd(&state->ticket, 1u) == gridDim.x - 1;
  if (threadIdx.x == 0 && last) {
    const int64_t count = (p.rows == 0 ? 0 : state->count) + k, pending = (p.rows == 0 ? 0 : state->pending) + k;
    state->head = (head + k) % p.size;
    state->count = count < p.size ? count : p.size;
    state->pending = pending < p.size ? pending : p.size;
    state->ticket = 0;
  }
}

}  // namespace

int64_t running_scratch(int64_t size, int64_t k, int64_t dim, bool sampled) {
  return RunningPlan(size, k, dim, sampled).scratch;
}

template <class T>
cudaError_t push_running(const RunningCall<T>& call, int64_t head, cudaStream_t stream) {
  const int64_t numbers = (call.prior.rows != nullptr ? 2 : 1) * call.current.count * call.dim;
  const int64_t blocks = std::clamp<int64_t>((numbers + kThreads - 1) / kThreads, 1, 1024);
  return launch(push_rows<T>, dim3(unsigned(blocks)), kThreads, 0, 1, stream, call, head);
}

template cudaError_t push_running(const RunningCall<float>&, int64_t, cudaStream_t);
template cudaError_t push_running(const RunningCall<double>&, int64_t, cudaStream_t);

}  // namespace mow::cuda
