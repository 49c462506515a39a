// Prints the scratch of n = m = 40 rows, of which a single launch takes none.
#include <cstdio>

#include "cuda/pairwise.h"
#include "cuda/sliced_wasserstein.h"

int main() {
  float number = 0;
  const mow::Rows<float> one{&number, 1, 0, 0}, history{&number, 39, 0, 0}, prior{&number, 40, 0, 0};
  const mow::cuda::Samples<float> samples{one, history, prior, 5};
  const mow::cuda::Sliced<float> sliced{samples, {&number, 10, 0, 0}, nullptr, 2, {&number, &number}};
  std::printf("%d %d\n", mow::cuda::pairwise_scratch(samples, true) > 0, mow::cuda::sliced_scratch(sliced) > 0);
}
