// Cramer-Wold distance; common/cramer_wold.h says what is summed.

#include "cuda/cramer_wold.h"

#include "cuda/pairwise.cuh"

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

}  // namespace mow::cuda
