// Tensors as the kernels of csrc/cpu/sliced_wasserstein_kernels.h take them.
#pragma once

#include "cpu/sliced_wasserstein_kernels.h"
#include "tensors.h"

namespace mow::cpu {

template <class T>
Matrix<T> matrix(const Tensor& t) {
  return {static_cast<const T*>(t.data_ptr()), t.size(0), t.size(1), t.stride(0), t.stride(1)};
}

}  // namespace mow::cpu
