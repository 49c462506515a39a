// The little that the ops need of tensors.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace mow::cpu {

using torch::stable::Tensor;

// A contiguous tensor of a type (aoti_torch_dtype_...), uninitialised. Past the dispatcher, which costs a microsecond.
inline Tensor empty(
    int32_t dtype, std::initializer_list<int64_t> sizes, int32_t device_type = aoti_torch_device_type_cpu(),
    int32_t device_index = 0) {
  int64_t strides[2] = {1, 1};
  if (sizes.size() == 2) strides[0] = sizes.begin()[1];
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      int64_t(sizes.size()), sizes.begin(), strides, dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

// The same, of the type of `like`.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes) {
  int32_t dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return empty(dtype, sizes);
}

// use(float()) or use(double()), by the type of the tensor.
template <class Use>
auto with_dtype(const Tensor& tensor, const Use& use) {
  return tensor.scalar_type() == torch::headeronly::ScalarType::Float ? use(float()) : use(double());
}

inline double rows_of(const Tensor& current, const Tensor& history) {
  return double(current.size(0) + history.size(0));
}

inline std::optional<double> rows_of(const std::optional<Tensor>& prior) {
  return prior ? std::optional(double(prior->size(0))) : std::nullopt;
}

// A matrix [rows, D] that may be a strided view.
template <class T>
struct Rows {
  const T* data = nullptr;
  int64_t count = 0;
  int64_t row_stride = 0;
  int64_t column_stride = 0;

  Rows() = default;
  explicit Rows(const Tensor& tensor)
      : data(static_cast<const T*>(tensor.data_ptr())),
        count(tensor.size(0)),
        row_stride(tensor.stride(0)),
        column_stride(tensor.stride(1)) {}
};

}  // namespace mow::cpu
