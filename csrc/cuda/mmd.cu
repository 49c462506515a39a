// Maximum mean discrepancy; common/mmd.h says what is summed.

#include "common/mmd.h"

#include "cuda/ops.h"
#include "cuda/pairwise.cuh"

namespace mow::cuda {

template <class T>
cudaError_t mmd(
    const MmdTable& table, const Samples<T>& samples, const Results<T>& results, void* scratch, cudaStream_t stream) {
  const auto distance = mmd_distance<T>(table, double(samples.window()), samples.prior_rows());
  return table.gaussian ? run<Family::kExponentials>(distance, samples, results, scratch, stream)
                        : run<Family::kRational>(distance, samples, results, scratch, stream);
}

template <class T>
int64_t pairwise_scratch(const Samples<T>& samples, bool needs_grad) {
  return Plan::make(samples, needs_grad).scratch;
}

template cudaError_t run(const Pairwise<float, Family::kExponentials>&, void*, cudaStream_t);
template cudaError_t run(const Pairwise<double, Family::kExponentials>&, void*, cudaStream_t);
template cudaError_t mmd(const MmdTable&, const Samples<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t mmd(const MmdTable&, const Samples<double>&, const Results<double>&, void*, cudaStream_t);
template int64_t pairwise_scratch(const Samples<float>&, bool);
template int64_t pairwise_scratch(const Samples<double>&, bool);

}  // namespace mow::cuda
