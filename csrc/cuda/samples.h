// What the CUDA backend's host functions take: raw pointers into device memory, and no torch, so that nvcc compiles them
// quickly and a test compiles them without it.
//
// They enqueue kernels on a stream of the current device and return at once what went wrong in the launch. Their `scratch`
// is device memory of as many bytes as another function says, which must live until the stream is past it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>

#include "common/host_device.h"
#include "common/rows.h"

namespace mow::cuda {

// Rows as they lie in memory, or the newest `count` of a ring of `slots`, oldest first. Where that stands is in device memory:
// `head` is the slot that is written next.
template <class T>
struct Past : Rows<T> {
  int64_t slots = 0;
  const int64_t* head = nullptr;

  MOW_HD Past() {}
  MOW_HD Past(const Rows<T>& rows) : Rows<T>(rows) {}
  Past(const Rows<T>& ring, const int64_t* head, int64_t newest) : Rows<T>(ring), slots(ring.count), head(head) {
    this->count = newest;
  }

  MOW_HD int64_t slot(int64_t row) const {
    if (head == nullptr) return row;
    const int64_t slot = *head - this->count + row;
    return slot < 0 ? slot + slots : slot;
  }
};

// The window [history; current] and the prior, all of one width. The prior has no rows where it is N(0, I).
template <class T>
struct Samples {
  Rows<T> current;
  Past<T> history;
  Rows<T> prior;
  int64_t dim;

  MOW_HD int64_t window() const { return history.count + current.count; }

  // The rows of the prior sample, if there is one.
  std::optional<double> prior_rows() const {
    return prior.count > 0 ? std::optional<double>(double(prior.count)) : std::nullopt;
  }
};

// Where the value [] and the gradient [k, D], contiguous, go; either is null where it is not needed.
template <class T>
struct Results {
  T* value;
  T* g_current;
};

}  // namespace mow::cuda
