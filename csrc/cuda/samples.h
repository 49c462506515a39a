// What the CUDA backend's host functions take: raw pointers into device memory, and no torch, so that nvcc compiles them
// quickly and a test compiles them without it.
#pragma once

#include <cstdint>
#include <optional>

#include "common/host_device.h"

namespace mow::cuda {

// A matrix [count, D] that may be a strided view.
template <class T>
struct Rows {
  const T* data;
  int64_t count, row_stride, column_stride;
};

// The window [history; current] and the prior, all of one width. The prior has no rows where it is N(0, I).
template <class T>
struct Samples {
  Rows<T> current, history, prior;
  int64_t dim;

  MOW_HD int64_t window() const { return history.count + current.count; }

  // The rows of the prior sample, if there is one.
  std::optional<double> prior_rows() const {
    return prior.count > 0 ? std::optional<double>(double(prior.count)) : std::nullopt;
  }
};

// Where the value [] and the gradient [k, D], contiguous, go; g_current is null where none is needed.
template <class T>
struct Results {
  T* value;
  T* g_current;
};

// A sliced-Wasserstein problem.
template <class T>
struct Sliced {
  Samples<T> samples;
  Rows<T> directions;  // [L, D]: the directions as rows
  // For N(0, I) in device memory: [1 + n], the mean variance inside n equal quantile bins, then the bins' means, ascending.
  const double* bins;
  double p;
  Results<T> results;
};

// Where a selection of k rows goes: their numbers [k], the square of the covering radius [], the Voronoi counts [k].
template <class T>
struct Centers {
  int64_t* indices;
  T* squared_radius;
  int64_t* counts;
};

}  // namespace mow::cuda
