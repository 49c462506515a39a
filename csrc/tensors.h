// The little that the ops need of tensors, on every device.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "common/rows.h"

namespace mow {

using torch::stable::Tensor;

// A contiguous tensor of a type (aoti_torch_dtype_...) on the device of `like`, uninitialised. Past the dispatcher, which
// costs a microsecond.
inline Tensor empty(const Tensor& like, int32_t dtype, std::initializer_list<int64_t> sizes) {
  int64_t strides[2] = {1, 1};
  if (sizes.size() == 2) strides[0] = sizes.begin()[1];
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      int64_t(sizes.size()), sizes.begin(), strides, dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

// The same, of the type of `like`.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return empty(like, dtype, sizes);
}

// use(float()) or use(double()), by the type of the tensor.
template <class Use>
auto with_dtype(const Tensor& tensor, const Use& use) {
  return tensor.scalar_type() == torch::headeronly::ScalarType::Float ? use(float()) : use(double());
}

template <class T>
Rows<T> rows_of(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.data_ptr()), tensor.size(0), tensor.stride(0), tensor.stride(1)};
}

// None where there is no tensor.
template <class T>
Rows<T> rows_of(const std::optional<Tensor>& tensor) {
  return tensor ? rows_of<T>(*tensor) : Rows<T>{};
}

}  // namespace mow
