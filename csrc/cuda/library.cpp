// The ops on CUDA devices; csrc/library.cpp has their schemas, csrc/cuda/ops.h what they run.
//
// Everything is enqueued on the current stream and nothing waits for the device, so that a CUDA graph can capture it. The
// tables are read on the host, before that.

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <utility>

#include "cpu/tensors.h"
#include "cuda/ops.h"

// Part of torch's stable ABI where torch was built with CUDA. Weak, so that the library also loads beside one that was not.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace mow::cuda {
namespace {

using torch::stable::Tensor;

template <class T>
Rows<T> rows_of(const Tensor& t) {
  return {static_cast<const T*>(t.data_ptr()), t.size(0), t.stride(0), t.stride(1)};
}

// One call: its device, its samples and where the results go.
template <class T>
class Call {
 public:
  Call(const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, bool needs_grad)
      : current_(current),
        guard_(current.get_device_index()),
        value_(empty({})),
        g_current_(needs_grad ? empty({current.size(0), current.size(1)}) : empty({0})),
        samples{
            rows_of<T>(current), rows_of<T>(history), prior ? rows_of<T>(*prior) : Rows<T>{nullptr, 0, 0, 0},
            current.size(1)},
        results{
            static_cast<T*>(value_.data_ptr()), needs_grad ? static_cast<T*>(g_current_.data_ptr()) : nullptr} {}

  // run(scratch, stream) -> the error of its launches.
  template <class Run>
  std::tuple<Tensor, Tensor> run(int64_t scratch_bytes, const Run& run) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(current_.get_device_index(), &stream));
    std::optional<Tensor> scratch;  // given back at once: what comes after it on the stream may have the memory
    if (scratch_bytes > 0) scratch = empty({(scratch_bytes + int64_t(sizeof(T)) - 1) / int64_t(sizeof(T))});
    const cudaError_t failed = run(scratch ? scratch->data_ptr() : nullptr, static_cast<cudaStream_t>(stream));
    STD_TORCH_CHECK(failed == cudaSuccess, "backend \"cuda\": ", cudaGetErrorString(failed));
    return {value_, g_current_};
  }

 private:
  const Tensor& current_;
  torch::stable::accelerator::DeviceGuard guard_;
  Tensor value_, g_current_;

  Tensor empty(std::initializer_list<int64_t> sizes) const {
    const int32_t dtype = sizeof(T) == 4 ? aoti_torch_dtype_float32() : aoti_torch_dtype_float64();
    return cpu::empty(dtype, sizes, aoti_torch_device_type_cuda(), current_.get_device_index());
  }

 public:
  const Samples<T> samples;
  const Results<T> results;
};

template <class T>
std::tuple<Tensor, Tensor> run_mmd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad) {
  Call<T> call(current, history, prior, needs_grad);
  const MmdTable mmd_table(static_cast<const double*>(table.data_ptr()), table.numel());
  return call.run(pairwise_scratch(call.samples, needs_grad), [&](void* scratch, cudaStream_t stream) {
    return mmd(mmd_table, call.samples, call.results, scratch, stream);
  });
}

template <class T>
std::tuple<Tensor, Tensor> run_cramer_wold(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  Call<T> call(current, history, prior, needs_grad);
  const CramerWoldTable table{static_cast<const double*>(phi.data_ptr()), phi.numel()};
  return call.run(pairwise_scratch(call.samples, needs_grad), [&](void* scratch, cudaStream_t stream) {
    return cramer_wold(table, gamma, call.samples, call.results, scratch, stream);
  });
}

template <class T>
std::tuple<Tensor, Tensor> run_sliced(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  Call<T> call(current, history, prior, needs_grad);
  const auto* data = static_cast<const T*>(directions.data_ptr());
  const Sliced<T> problem{
      call.samples,
      {data, directions.size(1), directions.stride(1), directions.stride(0)},
      prior ? nullptr : static_cast<const double*>(normal->data_ptr()),
      p,
      call.results};
  return call.run(sliced_scratch(problem), [&](void* scratch, cudaStream_t stream) {
    return sliced_wasserstein(problem, scratch, stream);
  });
}

template <class T>
std::tuple<Tensor, Tensor, Tensor> run_k_center(const Tensor& x, int64_t k, int64_t start) {
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const int32_t dtype = sizeof(T) == 4 ? aoti_torch_dtype_float32() : aoti_torch_dtype_float64();
  const auto empty = [&](int32_t type, std::initializer_list<int64_t> sizes) {
    return cpu::empty(type, sizes, aoti_torch_device_type_cuda(), device);
  };
  Tensor indices = empty(aoti_torch_dtype_int64(), {k}), counts = empty(aoti_torch_dtype_int64(), {k});
  Tensor squared_radius = empty(dtype, {});
  const Tensor scratch = empty(aoti_torch_dtype_uint8(), {k_center_scratch<T>(x.size(0), x.size(1))});
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const Centers<T> centers{
      static_cast<int64_t*>(indices.data_ptr()), static_cast<T*>(squared_radius.data_ptr()),
      static_cast<int64_t*>(counts.data_ptr())};
  const cudaError_t failed =
      k_center(rows_of<T>(x), x.size(1), k, start, centers, scratch.data_ptr(), static_cast<cudaStream_t>(stream));
  STD_TORCH_CHECK(failed == cudaSuccess, "backend \"cuda\": ", cudaGetErrorString(failed));
  return {std::move(indices), std::move(squared_radius), std::move(counts)};
}

bool is_single(const Tensor& current) { return current.scalar_type() == torch::headeronly::ScalarType::Float; }

std::tuple<Tensor, Tensor> mmd_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& table,
    bool needs_grad) {
  return (is_single(current) ? run_mmd<float> : run_mmd<double>)(current, history, prior, table, needs_grad);
}

std::tuple<Tensor, Tensor> cramer_wold_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& phi, double gamma,
    bool needs_grad) {
  return (is_single(current) ? run_cramer_wold<float> : run_cramer_wold<double>)(
      current, history, prior, phi, gamma, needs_grad);
}

// normal, where there is no prior: as on the CPU, but on the device.
std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  return (is_single(current) ? run_sliced<float> : run_sliced<double>)(
      current, history, prior, directions, normal, p, needs_grad);
}

std::tuple<Tensor, Tensor, Tensor> k_center_op(const Tensor& x, int64_t k, int64_t start) {
  return (is_single(x) ? run_k_center<float> : run_k_center<double>)(x, k, start);
}

}  // namespace
}  // namespace mow::cuda

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CUDA, m) {
  m.impl("mmd_fwd", TORCH_BOX(&mow::cuda::mmd_fwd));
  m.impl("cramer_wold_fwd", TORCH_BOX(&mow::cuda::cramer_wold_fwd));
  m.impl("sliced_wasserstein_fwd", TORCH_BOX(&mow::cuda::sliced_wasserstein_fwd));
  m.impl("k_center", TORCH_BOX(&mow::cuda::k_center_op));
}
