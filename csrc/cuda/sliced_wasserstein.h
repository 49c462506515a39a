// Sliced-Wasserstein distance on CUDA devices, past torch.
#pragma once

#include "common/ranking.h"
#include "cuda/samples.h"

namespace mow::cuda {

template <class T>
struct Sliced {
  Samples<T> samples;
  Rows<T> directions;  // [L, D]: the directions as rows
  // For N(0, I) in device memory: [1 + n], the mean variance inside n equal quantile bins, then the bins' means, ascending.
  const double* bins;
  double p;
  Results<T> results;
  bool drawn = false;  // the directions are draws from N(0, I), to be divided by their norms
};

template <class T>
int64_t sliced_scratch(const Sliced<T>& problem);

template <class T>
cudaError_t sliced_wasserstein(const Sliced<T>& problem, void* scratch, cudaStream_t stream);

// Where the ring of a window with sorted projections stands, and which list is the window's; zeros at first.
struct SortedState {
  int64_t head, list;
  unsigned ticket;  // blocks of a launch that are done
};

// What SortedProjections of mow_kernels/ops/sliced_wasserstein.py keeps, as csrc/cpu/sliced_wasserstein_sorted.h says, but
// with the state behind the keys and unsigned keys; and the rows that are measured or pushed.
template <class T>
struct SortedWindow {
  typename KeyOf<T>::Unsigned* keys;  // [3, L, size]: by slot, list 0, list 1
  SortedState* state;
  int64_t size, rows, dim;
  int64_t head;  // where there are no rows yet
  Rows<T> fresh, directions;  // [k, D], [L, D]

  static SortedWindow of(
      void* kept, int64_t size, int64_t head, int64_t rows, int64_t dim, const Rows<T>& fresh, const Rows<T>& directions) {
    auto* const keys = static_cast<typename KeyOf<T>::Unsigned*>(kept);
    const int64_t bytes = 3 * directions.count * size * int64_t(sizeof *keys);
    void* const state = static_cast<unsigned char*>(kept) + (bytes + 7) / 8 * 8;
    return {keys, static_cast<SortedState*>(state), size, rows, dim, head, fresh, directions};
  }
};

template <class T>
int64_t sorted_scratch(const SortedWindow<T>& window, bool measures);

// The value and the gradient over [the newest min(rows, size - k) rows; fresh], which are sorted in the other list then.
template <class T>
cudaError_t evaluate_sorted(
    const SortedWindow<T>& window, const double* bins, const Results<T>& results, void* scratch, cudaStream_t stream);

// Writes the fresh rows at the head; the other list has them already if they were `evaluated` last.
template <class T>
cudaError_t push_sorted(const SortedWindow<T>& window, bool evaluated, void* scratch, cudaStream_t stream);

}  // namespace mow::cuda
