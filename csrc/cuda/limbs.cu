// What splits rows into limbs.

#include "cuda/limbs.cuh"

#include <cmath>

namespace mow::cuda {

namespace {

constexpr int kCentres = 64;  // rows whose mean is the centre

// The mean of rows of the window that are evenly apart, or zeros if it is not wanted; zeros from dim on.
template <class T>
__global__ void __launch_bounds__(kThreads) find_centre(
    Sequence<T> window, int64_t dim, bool wanted, float* centre, int64_t size) {
  const int64_t d = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (d >= size) return;
  const int64_t rows = window.count(), count = rows < kCentres ? rows : kCentres;
  double sum = 0;
  for (int64_t i = 0; i < count && wanted && d < dim; ++i) {
    const Line<T> line = window.line(i * rows / count);
    sum += line.data[d * line.stride];
  }
  centre[d] = float(sum / double(count));
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(kThreads) split_rows(
    Sequence<T> window, Sequence<T> prior, int64_t dim, Limbs limbs) {
  const int64_t place = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const Line<T> line = place < limbs.window ? window.line(place) : prior.line(place - limbs.window);
  const auto coordinate = [&](int64_t d) {
    return line.data == nullptr || d >= dim ? 0.0f : line.data[d * line.stride] - limbs.centre[d];
  };

  float largest = 0;
  double norm = 0;
  for (int64_t d = lane; d < dim; d += 32) {
    const float x = coordinate(d);
    largest = std::fmax(largest, std::fabs(x));
    norm += double(x) * double(x);
  }
  for (int other = 16; other > 0; other /= 2) {
    largest = std::fmax(largest, __shfl_xor_sync(0xffffffff, largest, other));
    norm += __shfl_xor_sync(0xffffffff, norm, other);
  }
  // The largest coordinate comes to at least 2^14 and less than 2^15. What is not finite stays so, and a denormal is small
  // enough as it is.
  int exponent = 0;
  if (largest <= 3e38f) std::frexp(largest, &exponent);
  const int shift = 15 - exponent < 126 ? 15 - exponent : 126;
  const float scale = std::ldexp(1.0f, shift);
  if (lane == 0) const_cast<Size*>(limbs.sizes)[place] = {{float(norm), std::ldexp(1.0f, -shift)}};
  for (int64_t d = lane; d < limbs.groups * kGroup16; d += 32) {
    const float x = coordinate(d) * scale;
    const Half high = half_of(x);
    *const_cast<Half*>(limbs.at(place, d, 0)) = high;
    *const_cast<Half*>(limbs.at(place, d, 1)) = half_of((x - float_of(high)) * kLow);
  }
}

}  // namespace

cudaError_t split(const Samples<float>& samples, bool centred, const Limbs& limbs, cudaStream_t stream) {
  const Sequence<float> window{samples.history, samples.current}, prior{samples.prior, {}};
  const int64_t width = limbs.groups * kGroup16;
  const auto failed = launch(
      find_centre<float>, dim3(unsigned((width + kThreads - 1) / kThreads)), kThreads, 0, 1, stream, window, samples.dim, centred,
      const_cast<float*>(limbs.centre), width);
  if (failed != cudaSuccess) return failed;
  return launch(
      split_rows<float>, dim3(unsigned(limbs.rows / kWarps)), kThreads, 0, 1, stream, window, prior, samples.dim, limbs);
}

}  // namespace mow::cuda
