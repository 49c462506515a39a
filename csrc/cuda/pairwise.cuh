// Sums of a function over pairs of rows, and their gradients for the current rows.
//
// The window and the prior are cut into tiles (tiling.cuh); a visit is a pair of them, whose distances, or products, come
// from a class of product.cuh. A visit sums in the type of the rows; the visits are summed in double precision in a fixed order,
// so that the bits do not change from run to run.
//
// A small window is one launch (pairwise_window); a large one is two: pairwise_tiles writes partial sums, pairwise_finish
// adds them up. On tensor cores two more come before them, which split the rows into limbs.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "common/distance.h"
#include "common/radial_values.h"
#include "cuda/block.cuh"
#include "cuda/product.cuh"
#include "cuda/samples.h"
#include "cuda/team.cuh"
#include "cuda/tensor_product.cuh"
#include "cuda/tiling.cuh"
#include "cuda/warpgroup_product.cuh"

namespace mow::cuda {

template <class T, Family family>
struct Pairwise {
  Samples<T> samples;
  RadialValues<T, family> f;
  RadialValues<double, RadialValues<T, family>::kClosedForm> g;  // where there is no prior sample
  RadialValues<double, Family::kProducts> d;  // where `diagonal`, which only a function of products has
  double constant, zz, vv, zv;  // as in PairwiseDistance
  bool diagonal;
  Results<T> results;
};

// One block's visits. Element (row, d) of the gradient belongs to one thread throughout: warp row/4 % kWarps, lane d % 32.
template <class T, Family family, class Product>
struct Block {
  static constexpr int kRows = Product::kRows, kColumns = Product::kColumns, kPairs = Product::kPairs;
  using Shared = typename Product::Shared;
  static constexpr int kBatch = kPairs < 8 ? kPairs : 8;
  static constexpr int kGroup = 4;  // rows whose gradient a warp adds up at once
  static constexpr bool kOfProducts = of_products(family);
  static_assert(kRows % (kGroup * kWarps) == 0 && kRows % kColumns == 0);

  const Pairwise<T, family>& p;
  const Tiling tiles;
  Shared& shared;
  double* const gradient;  // [k, D], or null
  Product product;
  double total = 0;  // of the pairs that this thread has seen

  __device__ Block(const Pairwise<T, family>& p, Shared& shared, double* gradient, const Product& product)
      : p(p),
        tiles(tiling(p.samples, gradient != nullptr, kRows, kColumns)),
        shared(shared),
        gradient(gradient),
        product(product) {}

  // Calls each(row, its place in the gradient) for the current rows of a tile that belong to this thread's warp.
  template <class Each>
  __device__ void for_current_rows(int64_t tile, const Each& each) const {
    for (int group = threadIdx.x / 32 * kGroup; group < kRows; group += kGroup * kWarps) {
      for (int i = 0; i < kGroup; ++i) {
        const int64_t row = tile * kRows + group + i;
        if (row >= tiles.history && row < tiles.window) each(row, gradient + (row - tiles.history) * p.samples.dim);
      }
    }
  }

  __device__ void clear(int64_t tile) const {
    if (!tiles.has_gradient(tile)) return;
    for_current_rows(tile, [&](int64_t, double* place) {
      for (int64_t d = threadIdx.x % 32; d < p.samples.dim; d += 32) place[d] = 0;
    });
  }

  // Whether rows have something by themselves.
  __device__ bool alone() const { return p.samples.prior.count == 0 || (kOfProducts && p.diagonal); }

  // That of the rows of a tile.
  __device__ void visit_alone(int64_t tile) {
    if (p.samples.prior.count == 0) visit_norms(tile, p.g, p.zv);
    if constexpr (kOfProducts) {
      if (p.diagonal) visit_norms(tile, p.d, tile < tiles.of_window() ? p.zz : p.vv);
    }
  }

  // Visits first <= v < end of a tile.
  __device__ void visit(int64_t tile, int64_t first, int64_t end) {
    if (first >= end) return;
    const Visits<T> visits{p.samples, tiles, tile, first, end - first};
    product.begin(visits, shared);
    for (int64_t i = 0; i < visits.count; ++i) {
      T r[kPairs];
      product(visits, i, p.samples.dim, shared, r);
      add(visits[i], r);
    }
  }

 private:
  __device__ void add(const Visit<T>& visit, T (&r)[kPairs]) {
    const T sum = evaluate(visit, r);
    const double weight = !visit.same() ? p.zv : 2 * (visit.of_prior ? p.vv : p.zz);
    total += weight * double(sum);
    if (visit.slopes) pull(visit, r, weight);
  }

  // How many of `size` rows there are.
  __device__ static int there(const Sequence<T>& rows, int64_t first, int size) {
    const int64_t left = rows.count() - first;
    return int(left < size ? left : size);
  }

  // The sum of f over this thread's pairs; and their slopes in place of r, where rows want them.
  __device__ T evaluate(const Visit<T>& visit, T (&r)[kPairs]) const {
    // In the tile, where 32 bits are enough: rows and columns there are, and how far the columns begin after the rows, of
    // which only the nearest tiles matter.
    const int row = Product::first_row(), column = Product::first_column();
    const int all_rows = there(visit.rows(), visit.first_row, kRows);
    const int all_columns = there(visit.columns(), visit.first_column, kColumns);
    const int rows = all_rows - row, columns = all_columns - column;
    const int64_t ahead = visit.same() ? visit.first_column - visit.first_row : -kColumns;
    const int after = int(ahead < -kColumns ? -kColumns : ahead > kRows ? kRows : ahead) + column - row;
    const bool every = all_rows == kRows && all_columns == kColumns && ahead <= -kColumns && !visit.slopes;
    T sum = 0;
#pragma unroll
    for (int start = 0; start < kPairs; start += kBatch) {
      T some[kBatch], value[kBatch], slope[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) some[i] = r[start + i];
      if (visit.slopes) {
        p.f.template operator()<true>(some, value, slope);
      } else {
        p.f.template operator()<false>(some, value, slope);
      }
      if (every) {  // all pairs count, as nearly always in a large window
#pragma unroll
        for (int i = 0; i < kBatch; ++i) sum += value[i];
        continue;
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int below = Product::row(start + i), right = Product::column(start + i);
        const bool present = below < rows && right < columns;
        sum += present && after + right < below ? value[i] : T(0);
        // A row with itself has no difference to multiply its slope, but a product.
        const bool apart = !kOfProducts || after + right != below;
        r[start + i] = visit.slopes && present && apart ? slope[i] : T(0);
      }
    }
    return sum;
  }

  // Adds what the columns pull the rows with to the gradient.
  __device__ void pull(const Visit<T>& visit, const T (&slopes)[kPairs], double weight) const {
    constexpr int kRun = Product::kRun;
    const int row = Product::first_row(), column = Product::first_column();
#pragma unroll
    for (int i = 0; i < kPairs; i += kRun) {
      Pack<T, kRun> pack;
      for (int j = 0; j < kRun; ++j) pack.v[j] = slopes[i + j];
      *reinterpret_cast<Pack<T, kRun>*>(&shared.slopes[row + Product::row(i)][column + Product::column(i)]) = pack;
    }
    if (Product::kLeavesLast) __syncthreads();  // or loading has a barrier
    const int64_t last = (p.samples.dim - 1) / kDepth * kDepth;
    for (int64_t start = last; start >= 0; start -= kDepth) {
      if (!Product::kLeavesLast || start != last) shared.load(visit, start, p.samples.dim);
      add_gradient(visit.first_row, start, kOfProducts ? weight : 2 * weight);
    }
  }

  // f(|row|^2) in double precision, since it may bend where float resolves its argument badly. A closed form has up to a
  // hundred terms, each of which waits for the one before: a lane evaluates one of the rows of a group, which wait together.
  template <class F>
  __device__ void visit_norms(int64_t tile, const F& f, double weight) {
    const bool in_window = tile < tiles.of_window();
    const auto rows = sequence(p.samples, !in_window);
    const int64_t first = (in_window ? tile : tile - tiles.of_window()) * kRows;
    const int lane = threadIdx.x % 32;
    for (int group = threadIdx.x / 32 * kGroup; group < kRows; group += kGroup * kWarps) {
      double norms[kGroup] = {}, norm[1], value[1], slope[1];
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const Line<T> line = rows.line(first + group + i);
        for (int64_t d = lane; line.data != nullptr && d < p.samples.dim; d += 32) {
          const double x = line.data[d * line.stride];
          norms[i] += x * x;
        }
      }
      for (int other = 16; other > 0; other /= 2) {
#pragma unroll
        for (int i = 0; i < kGroup; ++i) norms[i] += __shfl_xor_sync(0xffffffff, norms[i], other);
      }
      norm[0] = norms[0];
#pragma unroll
      for (int i = 1; i < kGroup; ++i) norm[0] = lane == i ? norms[i] : norm[0];
      f.template operator()<true>(norm, value, slope);
      if (lane < kGroup && first + group + lane < rows.count()) total += weight * value[0];
      if (gradient == nullptr || !in_window) continue;
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const int64_t row = first + group + i;
        const double factor = 2 * weight * __shfl_sync(0xffffffff, slope[0], i);
        if (row < tiles.history || row >= tiles.window) continue;
        double* const place = gradient + (row - tiles.history) * p.samples.dim;
        const Line<T> line = rows.line(row);
        for (int64_t d = lane; d < p.samples.dim; d += 32) place[d] += factor * double(line.data[d * line.stride]);
      }
    }
  }

  // gradient += factor * sum_j slope_ij (row_i - column_j), or of column_j where the slopes are those of products, in the
  // coordinates that are in shared memory.
  __device__ void add_gradient(int64_t first_row, int64_t start, double factor) const {
    constexpr int kPack = 16 / sizeof(T);
    const int lane = threadIdx.x % 32;
    const int64_t d = start + lane;
    if (d >= p.samples.dim) return;
    for (int group = threadIdx.x / 32 * kGroup; group < kRows; group += kGroup * kWarps) {
      const int64_t row = first_row + group;
      if (row + kGroup <= tiles.history || row >= tiles.window) continue;
      T x[kGroup], sum[kGroup] = {};
#pragma unroll
      for (int i = 0; i < kGroup; ++i) x[i] = shared.rows[lane][group + i];
      for (int j = 0; j < kColumns; j += kPack) {
        const auto y = *reinterpret_cast<const Pack<T, kPack>*>(&shared.columns[lane][j]);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          const auto s = *reinterpret_cast<const Pack<T, kPack>*>(&shared.slopes[group + i][j]);
#pragma unroll
          for (int e = 0; e < kPack; ++e) sum[i] += s.v[e] * (kOfProducts ? y.v[e] : x[i] - y.v[e]);
        }
      }
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        if (row + i < tiles.history || row + i >= tiles.window) continue;
        gradient[(row + i - tiles.history) * p.samples.dim + d] += factor * double(sum[i]);
      }
    }
  }
};

constexpr int kSmallP = 2;  // small windows in tiles of 32 rows, so that a team has something to share
template <class T>
constexpr int kLargeP = sizeof(T) == 4 ? 4 : 2;

template <class T, Family family>
using SmallProduct = PlainProduct<T, of_products(family), kSmallP>;
template <class T, Family family>
using LargeProduct = PlainProduct<T, of_products(family), kLargeP<T>>;
template <Family family>
using LargeTensorProduct = TensorProduct<of_products(family)>;
template <Family family>
using LargeWarpgroupProduct = WarpgroupProduct<of_products(family)>;
// Of the first two, whatever the family.
template <class T>
using SmallTile = Tile<T, 16 * kSmallP>;
template <class T>
using LargeTile = Tile<T, 16 * kLargeP<T>>;

// A whole small window by one team. Shared memory: the tile, then the block's gradient [k, D] in double precision.
template <class T, Family family>
__global__ void __launch_bounds__(kThreads, 2) pairwise_window(const __grid_constant__ Pairwise<T, family> p) {
  using Worker = Block<T, family, SmallProduct<T, family>>;
  unsigned char* const memory = dynamic_shared();
  auto& shared = *reinterpret_cast<typename Worker::Shared*>(memory);
  const bool needs_grad = p.results.g_current != nullptr;
  double* const gradient = needs_grad ? reinterpret_cast<double*>(memory + sizeof shared) : nullptr;
  const int rank = Team::rank(), size = Team::size();

  Worker block(p, shared, gradient, {});
  int64_t turn = 0;
  const int64_t tiles = p.results.value != nullptr ? block.tiles.count() : block.tiles.live();
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t tile = block.tiles.tile(i);
    block.clear(tile);
    if (block.alone() && turn++ % size == rank) block.visit_alone(tile);
    for (int64_t visit = 0; visit < block.tiles.visits(tile); ++visit) {
      if (turn++ % size == rank) block.visit(tile, visit, visit + 1);
    }
  }

  block_results(block.total, p.constant, gradient, p.samples.current.count * p.samples.dim, shared.sums, p.results);
}

// Parts of the visits of the tiles, those with a gradient in `splits` parts each and the others in `other_splits`: a block
// each. Without a value these first ones are all blocks. totals [blocks], gradients [splits, k, D].
template <class Product, class T, Family family>
__device__ void visit_tiles(
    const Pairwise<T, family>& p, const Product& product, int64_t live_splits, int64_t other_splits, double* totals,
    double* gradients) {
  using Worker = Block<T, family, Product>;
  auto& shared = *reinterpret_cast<typename Worker::Shared*>(dynamic_shared());
  const Tiling tiles = tiling(p.samples, p.results.g_current != nullptr, Worker::kRows, Worker::kColumns);
  const int64_t live = tiles.live(), other = blockIdx.x - live * live_splits, others = tiles.count() - live;
  const int64_t tile = tiles.tile(other < 0 ? blockIdx.x % live : live + other % others);
  const int64_t split = other < 0 ? blockIdx.x / live : other / others, splits = other < 0 ? live_splits : other_splits;
  const int64_t size = p.samples.current.count * p.samples.dim;
  Worker block(p, shared, p.results.g_current ? gradients + split * size : nullptr, product);
  block.clear(tile);
  if (split == 0 && block.alone()) block.visit_alone(tile);
  const int64_t visits = block.tiles.visits(tile);
  block.visit(tile, visits * split / splits, visits * (split + 1) / splits);
  if (p.results.value == nullptr) return;
  const double total = block_sum(block.total, shared.sums);
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

template <class T, Family family>
__global__ void __launch_bounds__(kThreads, 2) pairwise_tiles(
    const __grid_constant__ Pairwise<T, family> p, int64_t live_splits, int64_t other_splits, double* totals,
    double* gradients) {
  visit_tiles(p, LargeProduct<T, family>(), live_splits, other_splits, totals, gradients);
}

// The same on tensor cores, T being float.
template <class T, Family family>
__global__ void __launch_bounds__(kThreads, 2) pairwise_tensor_tiles(
    const __grid_constant__ Pairwise<T, family> p, const Limbs limbs, int64_t live_splits, int64_t other_splits,
    double* totals, double* gradients) {
  visit_tiles(p, LargeTensorProduct<family>{limbs}, live_splits, other_splits, totals, gradients);
}

// And by warpgroups, in code that has their instructions; of others `has_warpgroups` sees that they are too few threads.
template <class T, Family family>
__global__ void __launch_bounds__(MOW_WARPGROUPS ? kThreads : 32, 1) pairwise_warpgroup_tiles(
    const __grid_constant__ Pairwise<T, family> p, const Limbs limbs, int64_t live_splits, int64_t other_splits,
    double* totals, double* gradients) {
#if MOW_WARPGROUPS
  using Product = LargeWarpgroupProduct<family>;
  __shared__ typename Product::Pipeline pipeline;
  visit_tiles(p, Product(limbs, pipeline, dynamic_shared()), live_splits, other_splits, totals, gradients);
#endif
}

// Whether the current device runs them.
bool has_warpgroups();

template <class T>
__global__ void __launch_bounds__(kThreads) pairwise_finish(
    double constant, const double* totals, int64_t count, const double* gradients, int64_t splits, int64_t size,
    Results<T> results) {
  if (blockIdx.x == 0 && results.value != nullptr) {
    __shared__ double sums[kWarps];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += totals[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) *results.value = T(constant + sum);
  }
  if (results.g_current == nullptr) return;
  __shared__ double parts[kWarps][32];
  for (int64_t first = int64_t(blockIdx.x) * 32; first < size; first += int64_t(gridDim.x) * 32) {
    sum_arrays(gradients, splits, size, first, size, parts, [&](int64_t i, double sum) { results.g_current[i] = T(sum); });
  }
}

// What takes the products of a large window.
enum class Products { kPlain, kTensor, kWarpgroup };

// Not tensor cores before they have been measured: the environment variable MOW_CUDA_PRODUCT says from how many rows on, and
// with "wgmma:" before the number, that it shall be warpgroups where the device has their instructions.
template <class T>
Products choose_products(int64_t rows) {
  static const char* const wanted = std::getenv("MOW_CUDA_PRODUCT");
  if (sizeof(T) != 4 || wanted == nullptr) return Products::kPlain;
  const char* const colon = std::strchr(wanted, ':');
  static const int64_t least_rows = std::atoll(colon ? colon + 1 : wanted);
  if (rows < least_rows) return Products::kPlain;
  return std::strncmp(wanted, "wgmma", 5) == 0 && has_warpgroups() ? Products::kWarpgroup : Products::kTensor;
}

// How a problem is run. It depends on the sizes alone and not on the device, but for warpgroups, and with it the order of the
// sums; nor does it depend on whether there is a value to be computed, so that the gradient has the same bits.
struct Plan {
  bool single;               // one launch
  Products products;         // where it is not
  int64_t work;              // in visits of kDepth coordinates, where single
  int64_t live, others;      // tiles with a gradient and without
  int64_t splits, other_splits;
  int64_t shared, scratch;   // bytes of shared memory and of device memory
  int64_t limbs;             // of the latter those that the limbs fill

  int64_t blocks(bool measured) const { return live * splits + (measured ? others * other_splits : 0); }
  Reader reader() const { return products == Products::kWarpgroup ? Reader::kWarpgroup : Reader::kWarp; }

  template <class T>
  static Plan make(const Samples<T>& samples, bool needs_grad) {
    const int64_t size = needs_grad ? samples.current.count * samples.dim : 0;
    Plan plan{};
    const Tiling small = tiling(samples, needs_grad, SmallTile<T>::kRows, SmallTile<T>::kColumns);
    plan.shared = int64_t(sizeof(SmallTile<T>)) + size * int64_t(sizeof(double));
    // A single block would take longer than the second launch from some 64 units on, of about half a microsecond each.
    static const int64_t most_units = threshold("MOW_CUDA_SINGLE", 64);
    if (small.window + small.prior <= 256 && plan.shared <= kMostShared) {
      for (int64_t tile = 0; tile < small.count(); ++tile) plan.work += small.visits(tile);
      plan.single = plan.work * ((samples.dim + kDepth - 1) / kDepth) <= most_units;
      if (plan.single) return plan;
    }
    plan.products = choose_products<T>(small.window + small.prior);
    using ByWarpgroups = WarpgroupProduct<false>;
    static_assert(ByWarpgroups::shared_bytes(ByWarpgroups::kMostResident) <= 226 << 10);  // with 1 KiB of its own, sm_90's
    const Tiling large = plan.products == Products::kWarpgroup
                             ? tiling(samples, needs_grad, ByWarpgroups::kRows, ByWarpgroups::kColumns)
                             : tiling(samples, needs_grad, LargeTile<T>::kRows, LargeTile<T>::kColumns);
    // Enough blocks of either kind for the largest devices, with gradients in memory that stays a multiple of the samples'.
    static const int64_t wanted = threshold("MOW_CUDA_BLOCKS", 1024);
    const auto splits = [](int64_t tiles, int64_t most) {
      return tiles == 0 ? 0 : std::clamp<int64_t>((wanted + tiles - 1) / tiles, 1, std::max<int64_t>(1, most));
    };
    plan.live = large.live();
    plan.others = large.count() - plan.live;
    plan.splits = splits(
        plan.live, std::min(large.most_visits(), 4 * (large.window + large.prior) / samples.current.count));
    plan.other_splits = splits(plan.others, plan.others * (large.rows / large.columns));
    plan.shared = int64_t(sizeof(LargeTile<T>));
    if (plan.products != Products::kPlain) {
      plan.shared = plan.products == Products::kTensor
                        ? int64_t(sizeof(TensorProduct<false>::Shared))
                        : ByWarpgroups::shared_bytes(Limbs::groups_of(samples.dim, plan.reader()) / 2);
      plan.limbs = Limbs::bytes(large.window, large.prior, samples.dim, plan.reader());
    }
    plan.scratch = plan.limbs + int64_t(sizeof(double)) * (plan.blocks(true) + plan.splits * size);
    return plan;
  }
};

// Runs a problem. scratch: Plan::scratch bytes of device memory.
template <class T, Family family>
cudaError_t run(const Pairwise<T, family>& p, void* scratch, cudaStream_t stream) {
  const bool needs_grad = p.results.g_current != nullptr;
  const Plan plan = Plan::make(p.samples, needs_grad);
  if (plan.single) {
    const int64_t alone = p.samples.prior.count == 0 ? tiling(p.samples, false, SmallTile<T>::kRows).of_window() : 0;
    const int team = team_size(plan.work + alone);
    return launch(pairwise_window<T, family>, dim3(unsigned(team)), kThreads, plan.shared, team, stream, p);
  }
  const int64_t size = p.samples.current.count * p.samples.dim, count = plan.blocks(p.results.value != nullptr);
  auto* const memory = static_cast<unsigned char*>(scratch);
  double *const totals = reinterpret_cast<double*>(memory + plan.limbs), *const gradients = totals + plan.blocks(true);
  const auto tiles = [&](auto kernel, const auto&... further) {
    return launch(
        kernel, dim3(unsigned(count)), kThreads, plan.shared, 1, stream, p, further..., plan.splits, plan.other_splits,
        totals, gradients);
  };
  cudaError_t failed = cudaSuccess;
  if constexpr (sizeof(T) == 4) {
    if (plan.products != Products::kPlain) {
      const Limbs limbs =
          Limbs::in(memory, p.samples.window(), p.samples.prior.count, p.samples.dim, plan.reader());
      failed = split(p.samples, !of_products(family), limbs, stream);
      if (failed != cudaSuccess) return failed;
      failed = plan.products == Products::kTensor ? tiles(pairwise_tensor_tiles<T, family>, limbs)
                                                  : tiles(pairwise_warpgroup_tiles<T, family>, limbs);
    }
  }
  if (plan.products == Products::kPlain) failed = tiles(pairwise_tiles<T, family>);
  if (failed != cudaSuccess) return failed;
  const int64_t blocks = needs_grad ? std::clamp<int64_t>((size + 31) / 32, 1, 1024) : 1;
  return launch(
      pairwise_finish<T>, dim3(unsigned(blocks)), kThreads, 0, 1, stream, p.constant,
      static_cast<const double*>(totals), count, static_cast<const double*>(gradients), plan.splits, size, p.results);
}

// The same for a distance whose f is of one family.
template <Family family, class T>
cudaError_t run(
    const PairwiseDistance<T>& distance, const Samples<T>& samples, const Results<T>& results, void* scratch,
    cudaStream_t stream) {
  Pairwise<T, family> p{};
  p.samples = samples, p.results = results;
  p.constant = distance.constant, p.zz = distance.zz, p.vv = distance.vv, p.zv = distance.zv;
  p.diagonal = distance.d.has_value();
  const bool fits = p.f.copy(distance.f.radial()) && (!distance.g || p.g.copy(distance.g->radial())) &&
                    (!distance.d || p.d.copy(distance.d->radial()));
  return fits ? run(p, scratch, stream) : cudaErrorInvalidValue;
}

// Instantiated in pairwise.cu: MMD needs them, and Cramer-Wold for D = 1.
extern template cudaError_t run(const Pairwise<float, Family::kExponentials>&, void*, cudaStream_t);
extern template cudaError_t run(const Pairwise<double, Family::kExponentials>&, void*, cudaStream_t);

}  // namespace mow::cuda
