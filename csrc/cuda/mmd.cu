// Maximum mean discrepancy; common/mmd.h says what is summed.

#include "cuda/mmd.h"

#include "cuda/pairwise.cuh"
#include "cuda/running.cuh"

namespace mow::cuda {

template <class T>
cudaError_t mmd(
    const MmdTable& table, const Samples<T>& samples, const Results<T>& results, void* scratch, cudaStream_t stream) {
  const auto distance = mmd_distance<T>(table, double(samples.window()), samples.prior_rows());
  switch (distance.f.radial().family) {
    case Family::kRational:
      return run<Family::kRational>(distance, samples, results, scratch, stream);
    case Family::kRoot:
      return run<Family::kRoot>(distance, samples, results, scratch, stream);
    case Family::kLaplacian:
      return run<Family::kLaplacian>(distance, samples, results, scratch, stream);
    case Family::kPowers:
      return run<Family::kPowers>(distance, samples, results, scratch, stream);
    case Family::kProducts:
      return run<Family::kProducts>(distance, samples, results, scratch, stream);
    default:
      return run<Family::kExponentials>(distance, samples, results, scratch, stream);
  }
}

template cudaError_t mmd(const MmdTable&, const Samples<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t mmd(const MmdTable&, const Samples<double>&, const Results<double>&, void*, cudaStream_t);

template <class T>
cudaError_t mmd_running(
    const MmdTable& table, const RunningCall<T>& call, const Results<T>& results, void* scratch, cudaStream_t stream) {
  const double n = double(call.rows + call.current.count);
  const auto distance = mmd_distance<T>(table, n, call.prior.rows ? std::optional<double>(n) : std::nullopt);
  switch (distance.f.radial().family) {
    case Family::kRational:
      return run_running<Family::kRational>(distance, call, results, scratch, stream);
    case Family::kRoot:
      return run_running<Family::kRoot>(distance, call, results, scratch, stream);
    case Family::kLaplacian:
      return run_running<Family::kLaplacian>(distance, call, results, scratch, stream);
    case Family::kPowers:
      return run_running<Family::kPowers>(distance, call, results, scratch, stream);
    case Family::kProducts:  // these passes are over |x-y|^2
      return cudaErrorInvalidValue;
    default:
      return run_running<Family::kExponentials>(distance, call, results, scratch, stream);
  }
}

template cudaError_t mmd_running(const MmdTable&, const RunningCall<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t mmd_running(const MmdTable&, const RunningCall<double>&, const Results<double>&, void*, cudaStream_t);

}  // namespace mow::cuda
