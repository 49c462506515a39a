// Maximum mean discrepancy; common/mmd.h says what is summed.

#include "cuda/mmd.h"

#include <type_traits>

#include "cuda/pairwise.cuh"
#include "cuda/running.cuh"

namespace mow::cuda {

namespace {

// use(the family of a function as a constant).
template <class Use>
cudaError_t with_family(Family family, const Use& use) {
  switch (family) {
    case Family::kRational:
      return use(std::integral_constant<Family, Family::kRational>());
    case Family::kRoot:
      return use(std::integral_constant<Family, Family::kRoot>());
    case Family::kLaplacian:
      return use(std::integral_constant<Family, Family::kLaplacian>());
    case Family::kPowers:
      return use(std::integral_constant<Family, Family::kPowers>());
    case Family::kProducts:
      return use(std::integral_constant<Family, Family::kProducts>());
    default:
      return use(std::integral_constant<Family, Family::kExponentials>());
  }
}

}  // namespace

template <class T>
cudaError_t mmd(
    const MmdTable& table, const Samples<T>& samples, const Results<T>& results, void* scratch, cudaStream_t stream) {
  const auto distance = mmd_distance<T>(table, double(samples.window()), samples.prior_rows());
  return with_family(distance.f.radial().family, [&](auto family) {
    return run<decltype(family)::value>(distance, samples, results, scratch, stream);
  });
}

template cudaError_t mmd(const MmdTable&, const Samples<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t mmd(const MmdTable&, const Samples<double>&, const Results<double>&, void*, cudaStream_t);

template <class T>
cudaError_t mmd_running(
    const MmdTable& table, const RunningCall<T>& call, const Results<T>& results, void* scratch, cudaStream_t stream) {
  const double n = double(call.rows + call.current.count);
  const auto distance = mmd_distance<T>(table, n, call.prior.rows ? std::optional<double>(n) : std::nullopt);
  return with_family(distance.f.radial().family, [&](auto family) {
    if constexpr (decltype(family)::value == Family::kProducts) {
      return cudaErrorInvalidValue;  // these passes are over |x-y|^2
    } else {
      return run_running<decltype(family)::value>(distance, call, results, scratch, stream);
    }
  });
}

template cudaError_t mmd_running(const MmdTable&, const RunningCall<float>&, const Results<float>&, void*, cudaStream_t);
template cudaError_t mmd_running(const MmdTable&, const RunningCall<double>&, const Results<double>&, void*, cudaStream_t);

}  // namespace mow::cuda
