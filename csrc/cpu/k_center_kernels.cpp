// Squared distances to the newest centre, their minimum with those before and the farthest row, in one pass over the rows.
//
// Compiled once per instruction set (csrc/cpu/isa.h), with -ffp-contract=off: each product and each sum is rounded for
// itself and in the order of the columns, as mow_kernels/reference/k_center.py defines it, so that all take the same rows.

#include "cpu/k_center_kernels.h"

#include "cpu/simd.h"

namespace mow::cpu::MOW_ISA {
namespace {

constexpr int kTiles = 4;  // visited at once, which hides the latency of the sums

template <class T>
struct Best {
  Vec<T> distance = broadcast<T>(-1);
  Int<T> tile{};
};

template <class T, int tiles>
inline void visit_tiles(
    const Cover<T>& cover, int64_t first, const T* center, Number<T> taken, Best<T>& best) {
  constexpr int L = kLanes<T>;
  const T* rows[tiles];
  Vec<T> sums[tiles] = {};
  for (int i = 0; i < tiles; ++i) rows[i] = cover.panel + (first + i) * L * cover.dim;
  for (int64_t d = 0; d < cover.dim; ++d) {
    for (int i = 0; i < tiles; ++i) {
      const Vec<T> difference = load(rows[i] + d * L) - center[d];
      sums[i] += difference * difference;
    }
  }
  for (int i = 0; i < tiles; ++i) {
    T* nearest = cover.nearest + (first + i) * L;
    Number<T>* owner = cover.owner + (first + i) * L;
    Vec<T> distance = load(nearest);
    const Int<T> closer = sums[i] < distance;
    distance = closer ? sums[i] : distance;
    store(nearest, distance);
    Int<T> owners;
    std::memcpy(&owners, owner, sizeof owners);
    owners = closer ? taken - Int<T>{} : owners;
    std::memcpy(owner, &owners, sizeof owners);
    const Int<T> farther = distance > best.distance;
    best.distance = farther ? distance : best.distance;
    best.tile = farther ? Number<T>(first + i) - Int<T>{} : best.tile;
  }
}

template <class T>
Farthest visit(const Cover<T>& cover, int64_t first, int64_t last, const T* center, Number<T> taken) {
  Best<T> best;
  int64_t tile = first;
  for (; tile + kTiles <= last; tile += kTiles) visit_tiles<T, kTiles>(cover, tile, center, taken, best);
  for (; tile < last; ++tile) visit_tiles<T, 1>(cover, tile, center, taken, best);
  Farthest farthest;
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const double distance = best.distance[lane];
    const int64_t row = best.tile[lane] * int64_t{kLanes<T>} + lane;
    if (distance > farthest.distance || (distance == farthest.distance && row < farthest.row)) farthest = {distance, row};
  }
  return farthest;
}

}  // namespace

extern const CenterKernels<float> float_center_kernels{visit<float>};
extern const CenterKernels<double> double_center_kernels{visit<double>};

}  // namespace mow::cpu::MOW_ISA
