// From an op's tensors to the host functions of this folder.
//
// Everything is enqueued on the current stream and nothing waits for the device, so that a CUDA graph can capture it. The
// tables are read on the host, before that.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "cuda/samples.h"
#include "tensors.h"

// Part of torch's stable ABI where torch was built with CUDA. Weak, so that the library also loads beside one that was not.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace mow::cuda {

// run(scratch, stream) -> the error of its launches. On the device of `like`, which must be the current one.
template <class Run>
void enqueue(const Tensor& like, int64_t scratch_bytes, const Run& run) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
  std::optional<Tensor> scratch;  // given back at once: what comes after it on the stream may have the memory
  if (scratch_bytes > 0) scratch = empty(like, aoti_torch_dtype_uint8(), {scratch_bytes});
  const cudaError_t failed = run(scratch ? scratch->data_ptr() : nullptr, static_cast<cudaStream_t>(stream));
  STD_TORCH_CHECK(failed == cudaSuccess, "backend \"cuda\": ", cudaGetErrorString(failed));
}

// The rows before the current ones: a tensor, or the newest `rows` of a ring (csrc/cuda/ring.cpp).
struct History {
  const Tensor& tensor;
  const Tensor* head = nullptr;
  int64_t rows = 0;

  template <class T>
  Past<T> past() const {
    return head ? Past<T>(rows_of<T>(tensor), static_cast<const int64_t*>(head->data_ptr()), rows)
                : Past<T>(rows_of<T>(tensor));
  }
};

// What a call of a distance is for.
enum class Wanted { kValue, kBoth, kGradient };

// A call of a distance: its device, its samples and where the results go.
template <class T>
class DeviceCall {
 public:
  DeviceCall(const Tensor& current, const History& history, const std::optional<Tensor>& prior, Wanted wanted)
      : current_(current),
        guard_(current.get_device_index()),
        value_(wanted == Wanted::kGradient ? empty(current, {0}) : empty(current, {})),
        g_current_(wanted == Wanted::kValue ? empty(current, {0}) : empty(current, {current.size(0), current.size(1)})),
        samples{rows_of<T>(current), history.past<T>(), rows_of<T>(prior), current.size(1)},
        results{
            wanted == Wanted::kGradient ? nullptr : static_cast<T*>(value_.data_ptr()),
            wanted == Wanted::kValue ? nullptr : static_cast<T*>(g_current_.data_ptr())} {}

  // As `enqueue`; the value and the gradient, each empty where it is not wanted.
  template <class Run>
  std::tuple<Tensor, Tensor> run(int64_t scratch_bytes, const Run& run) {
    enqueue(current_, scratch_bytes, run);
    return {value_, g_current_};
  }

 private:
  const Tensor& current_;
  torch::stable::accelerator::DeviceGuard guard_;
  Tensor value_, g_current_;

 public:
  const Samples<T> samples;
  const Results<T> results;
};

inline Wanted wanted(bool needs_grad) { return needs_grad ? Wanted::kBoth : Wanted::kValue; }
inline Wanted measured(bool measure) { return measure ? Wanted::kBoth : Wanted::kGradient; }

}  // namespace mow::cuda
