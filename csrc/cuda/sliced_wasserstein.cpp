// The op on CUDA devices.

#include "cuda/sliced_wasserstein.h"

#include "cuda/call.h"

namespace mow::cuda {
namespace {

// [D, L] or [1, D, L] -> [L, D].
template <class T>
Rows<T> rows_of_directions(const Tensor& directions) {
  const int64_t row = directions.dim() - 2, column = row + 1;
  return {
      static_cast<const T*>(directions.data_ptr()), directions.size(column), directions.stride(column),
      directions.stride(row)};
}

std::tuple<Tensor, Tensor> run(
    const Tensor& current, const History& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, Wanted wanted) {
  return with_dtype(current, [&]<class T>(T) {
    DeviceCall<T> call(current, history, prior, wanted);
    const Sliced<T> problem{
        call.samples,
        rows_of_directions<T>(directions),
        prior ? nullptr : static_cast<const double*>(normal->data_ptr()),
        p,
        call.results,
        directions.dim() == 3};
    return call.run(sliced_scratch(problem), [&](void* scratch, cudaStream_t stream) {
      return sliced_wasserstein(problem, scratch, stream);
    });
  });
}

std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  return run(current, {history}, prior, directions, normal, p, wanted(needs_grad));
}

Tensor sliced_wasserstein_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p) {
  return std::get<1>(run(current, {history}, prior, directions, normal, p, Wanted::kGradient));
}

std::tuple<Tensor, Tensor> sliced_wasserstein_ring(
    const Tensor& current, const Tensor& ring, const Tensor& head, int64_t rows, const std::optional<Tensor>& prior,
    const Tensor& directions, const std::optional<Tensor>& normal, double p, bool measure) {
  return run(current, {ring, &head, rows}, prior, directions, normal, p, measured(measure));
}

template <class T>
SortedWindow<T> sorted_window(
    const Tensor& keys, const Tensor& fresh, int64_t size, int64_t head, int64_t rows, const Tensor& directions) {
  return SortedWindow<T>::of(
      keys.data_ptr(), size, head, rows, fresh.size(1), rows_of<T>(fresh), rows_of_directions<T>(directions));
}

// What a list is called only the device knows.
std::tuple<Tensor, Tensor> sliced_wasserstein_sorted_fwd(
    const Tensor& keys, const Tensor& current, int64_t size, int64_t head, int64_t rows, int64_t, const Tensor& directions,
    const Tensor& normal, bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    DeviceCall<T> call(current, {current}, std::nullopt, wanted(needs_grad));
    const auto window = sorted_window<T>(keys, current, size, head, rows, directions);
    return call.run(sorted_scratch(window, true), [&](void* scratch, cudaStream_t stream) {
      return evaluate_sorted(window, static_cast<const double*>(normal.data_ptr()), call.results, scratch, stream);
    });
  });
}

void sliced_wasserstein_sorted_push(
    const Tensor& keys, const Tensor& rows, int64_t size, int64_t head, int64_t older, int64_t, const Tensor& directions,
    bool evaluated) {
  const torch::stable::accelerator::DeviceGuard guard(rows.get_device_index());
  with_dtype(rows, [&]<class T>(T) {
    const auto window = sorted_window<T>(keys, rows, size, head, older, directions);
    enqueue(rows, sorted_scratch(window, false), [&](void* scratch, cudaStream_t stream) {
      return push_sorted(window, evaluated, scratch, stream);
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) {
  // The gradient, and with `measure` the value, where the history are the newest `rows` of a ring (csrc/cuda/ring.cpp).
  m.def(
      "sliced_wasserstein_ring(Tensor current, Tensor ring, Tensor head, int rows, Tensor? prior, Tensor directions, "
      "Tensor? normal, float p, bool measure) -> (Tensor value, Tensor g_current)");
}

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("sliced_wasserstein_fwd", TORCH_BOX(&sliced_wasserstein_fwd));
  m.impl("sliced_wasserstein_gradient", TORCH_BOX(&sliced_wasserstein_gradient));
  m.impl("sliced_wasserstein_ring", TORCH_BOX(&sliced_wasserstein_ring));
  m.impl("sliced_wasserstein_sorted_fwd", TORCH_BOX(&sliced_wasserstein_sorted_fwd));
  m.impl("sliced_wasserstein_sorted_push", TORCH_BOX(&sliced_wasserstein_sorted_push));
}

}  // namespace mow::cuda
