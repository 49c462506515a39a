// What csrc/cuda/running.cuh keeps of a window, past torch.
#pragma once

#include "cuda/samples.h"

namespace mow::cuda {

// Where the ring stands.
struct RingState {
  int64_t head;     // the slot that is written next
  int64_t count;    // rows before it
  int64_t pending;  // the newest of them, which are in no sum yet
  unsigned ticket;  // blocks of a launch that are done
};

inline int64_t kept_slots(int64_t size) { return (size + 15) / 16 * 16; }

// In the memory that mow_kernels/running.py lays out, zeros at first: for each slot, of which there are a multiple of 16, the
// sums over the newer rows of the window itself and of the other window (N(0, I) takes the place of that: g of the row), the
// state, and the rows transposed [D, slots].
template <class T>
struct KeptRows {
  double *own = nullptr, *other = nullptr;
  RingState* state = nullptr;  // of the latents alone
  T* rows = nullptr;
  int64_t slots = 0;

  static KeptRows of(void* memory, int64_t size) {
    const int64_t slots = kept_slots(size);
    double* const own = static_cast<double*>(memory);
    return {own, own + slots, reinterpret_cast<RingState*>(own + 2 * slots), reinterpret_cast<T*>(own + 4 * slots), slots};
  }
};

// The newest `rows` of a ring of `size`, and those that are new.
template <class T>
struct RunningCall {
  KeptRows<T> latents, prior;  // prior: none for N(0, I)
  Rows<T> current, drawn;
  int64_t size, rows, dim;
};

int64_t running_scratch(int64_t size, int64_t k, int64_t dim, bool sampled);

// Writes rows at the head of the ring, which is `head` where there are no older rows, and else where the last push ended.
template <class T>
cudaError_t push_running(const RunningCall<T>& call, int64_t head, cudaStream_t stream);

}  // namespace mow::cuda
