// Cramer-Wold distance; common/cramer_wold.h says what is summed.

#include "cuda/cramer_wold.h"

#include "cuda/pairwise.cuh"
#include "cuda/running.cuh"

namespace mow::cuda {

template <class T>
cudaError_t cramer_wold(
    const CramerWoldTable& table, double gamma, const Samples<T>& samples, const Results<T>& results, void* scratch,
    cudaStream_t stream) {
  const auto distance = cramer_wold_distance<T>(table, gamma, double(samples.window()), samples.prior_rows());
  return table.size == 0 ? run<Family::kExponentials>(distance, samples, results, scratch, stream)
                         : run<Family::kSeriesHalf>(distance, samples, results, scratch, stream);
}

template cudaError_t cramer_wold(
    const CramerWoldTable&, double, const Samples<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t cramer_wold(
    const CramerWoldTable&, double, const Samples<double>&, const Results<double>&, void*, cudaStream_t);

template <class T>
cudaError_t cramer_wold_running(
    const CramerWoldTable& table, double gamma, const RunningCall<T>& call, const Results<T>& results, void* scratch,
    cudaStream_t stream) {
  const double n = double(call.rows + call.current.count);
  const auto distance = cramer_wold_distance<T>(table, gamma, n, call.prior.rows ? std::optional<double>(n) : std::nullopt);
  return table.size == 0 ? run_running<Family::kExponentials>(distance, call, results, scratch, stream)
                         : run_running<Family::kSeriesHalf>(distance, call, results, scratch, stream);
}

template cudaError_t cramer_wold_running(
    const CramerWoldTable&, double, const RunningCall<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t cramer_wold_running(
    const CramerWoldTable&, double, const RunningCall<double>&, const Results<double>&, void*, cudaStream_t);

}  // namespace mow::cuda
