// What the kernels were compiled for: "sm_80 sm_90a compute_90", as nvcc's -gencode has it. Without a tensor, so no device
// chooses its implementation.

#include <torch/csrc/stable/library.h>

#include <string>

namespace mow::cuda {
namespace {

std::string cuda_architectures() { return MOW_CUDA_CODES; }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mow_kernels, m) { m.def("cuda_architectures() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CompositeExplicitAutograd, m) {
  m.impl("cuda_architectures", TORCH_BOX(&cuda_architectures));
}

}  // namespace mow::cuda
