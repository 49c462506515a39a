// The sliced-Wasserstein op: the directions in groups that independent tasks take, and their sums in a fixed order.

#include <algorithm>
#include <cmath>
#include <memory>

#include "cpu/buffer.h"
#include "cpu/matrix.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"

namespace mow::cpu {
namespace {

// Directions whose slopes [k, directions] are held at once.
constexpr int64_t kChunk = 256;

// A task takes a few groups of directions together, which reads the samples once for all of them, as long as their
// projections stay in the cache: at most so many groups, and so many bytes.
constexpr int64_t kMostGroups = 4, kMostBytes = int64_t{5} << 18;

// Positions in a group are 32-bit numbers.
constexpr int64_t kMostRows = int64_t{1} << 27;

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
Matrix<T> columns(Matrix<T> m, int64_t first, int64_t count) {
  m.data += first * m.column_stride;
  m.columns = count;
  return m;
}

template <class T>
class Evaluation {
 public:
  // `measured`: the mean cost is wanted.
  Evaluation(const Slicing<T>& slicing, bool measured)
      : s_(slicing),
        measured_(measured),
        dim_(s_.directions.rows),
        count_(s_.directions.columns),
        h_(s_.history.rows),
        k_(s_.current.rows),
        n_(h_ + k_),
        m_(s_.prior.rows) {
    // Roughly: a multiply-add per number, and the network's levels of comparators.
    const double levels = std::pow(std::log2(double(n_)), 2);
    const double cycles = double(n_ + m_) * (double(dim_) + levels) * double(ceil_divide(count_, lanes_));
    parallel_ = cycles > 2e5;
    // A pass over the window for each current row takes less than sorting it, if there are few.
    sorted_ = measured_ || 2 * double(k_) > levels;
  }

  // The mean over the directions, if it was wanted; g_current [k, D] is left alone where it is null.
  double run(T* g_current) const {
    const int64_t chunk = std::min(kChunk, ceil_divide(count_, lanes_) * lanes_);
    const auto costs = std::make_unique_for_overwrite<double[]>(chunk);
    const auto slopes = std::make_unique_for_overwrite<T[]>(g_current ? k_ * chunk : 0);
    double sum = 0;
    for (int64_t first = 0; first < count_; first += chunk) {
      const int64_t here = std::min(chunk, count_ - first), groups = ceil_divide(here, lanes_);
      const int64_t together = groups_together(groups);
      run_tasks(ceil_divide(groups, together), parallel_, [&](int64_t task) {
        const int64_t begin = task * together, lane = begin * lanes_;
        match(first + lane, std::min(together, groups - begin), &costs[lane], g_current ? &slopes[lane] : nullptr, chunk);
      });
      for (int64_t i = 0; measured_ && i < here; ++i) sum += costs[i];
      if (g_current) spread({slopes.get(), k_, here, chunk, 1}, first, g_current);
    }
    return sum / count_;
  }

 private:
  const Slicing<T>& s_;
  const SlicedKernels<T>& kernels_ = sliced_kernels<T>();
  const int64_t lanes_ = kernels_.lanes;
  const bool measured_;
  const int64_t dim_, count_, h_, k_, n_, m_;
  bool parallel_, sorted_;

  // Every direction is computed alone: how many groups of them a task takes changes no bit.
  int64_t groups_together(int64_t groups) const {
    const int64_t fair = groups / (parallel_ ? int64_t(torch::stable::get_num_threads()) : 1);
    const int64_t fitting = kMostBytes / ((n_ + m_ + 2 * k_) * lanes_ * int64_t(sizeof(T)));
    return std::clamp<int64_t>(std::min(fair, fitting), 1, kMostGroups);
  }

  // The groups from direction `first` on. The memory is one piece, which the allocator hands out again and again without
  // asking the system.
  void match(int64_t first, int64_t groups, double* costs, T* slopes, int64_t slope_stride) const {
    const auto memory = allocate<SignedKey<T>>((groups * (n_ + m_) + 2 * k_) * lanes_);
    SignedKey<T>*const window = memory.get(), *const prior = window + groups * n_ * lanes_;
    SignedKey<T>*const current = prior + groups * m_ * lanes_, *const ranks = current + k_ * lanes_;
    const Projected<T> samples[] = {{s_.history, window, n_}, {s_.current, window + h_ * lanes_, n_}, {s_.prior, prior, m_}};
    kernels_.project(samples, 3, s_.directions, first, groups);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t lane = i * lanes_;
      const Group<T> group{
          first + lane, sorted_, window + n_ * lane, s_.normal ? nullptr : prior + m_ * lane, current, ranks};
      std::copy_n(group.window + h_ * lanes_, k_ * lanes_, current);
      if (sorted_) kernels_.sort(group.window, n_);
      if (group.prior) kernels_.sort(group.prior, m_);
      kernels_.match(
          s_, group, 1.0 / count_, measured_ ? costs + lane : nullptr, slopes ? slopes + lane : nullptr, slope_stride);
    }
  }

  // The gradient: slopes [k, l] on the directions from `first` on, l of them.
  void spread(const Matrix<T>& slopes, int64_t first, T* g_current) const {
    const bool heavy = double(k_) * double(dim_) * double(slopes.columns) > 4e6;
    const Matrix<T> directions = columns(s_.directions, first, slopes.columns);
    run_tasks(ceil_divide(k_, lanes_), parallel_ && heavy, [&](int64_t task) {
      kernels_.spread(slopes, directions, task * lanes_, first > 0, g_current);
    });
  }
};

template <class T>
Slicing<T> slicing_of(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p) {
  const int64_t n = history.size(0) + current.size(0);
  STD_TORCH_CHECK(n < kMostRows, "the window has ", n, " rows; backend \"cpp\" takes fewer than ", kMostRows);
  return {
      matrix<T>(history), matrix<T>(current), prior ? matrix<T>(*prior) : Matrix<T>{},
      prior ? nullptr : static_cast<const double*>(normal->data_ptr()) + 1, matrix<T>(directions), p};
}

}  // namespace

// normal, where there is no prior: float64 [1 + n], the mean variance of N(0, 1) inside n equal quantile bins, then the
// bins' means, ascending.
std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  Tensor value = empty(current, {});
  Tensor g_current = needs_grad ? empty(current, {current.size(0), current.size(1)}) : empty(current, {0});
  with_dtype(current, [&]<class T>(T) {
    const auto slicing = slicing_of<T>(current, history, prior, directions, normal, p);
    const double mean = Evaluation(slicing, true).run(needs_grad ? static_cast<T*>(g_current.data_ptr()) : nullptr);
    const double inside = prior ? 0 : *static_cast<const double*>(normal->data_ptr());
    *static_cast<T*>(value.data_ptr()) = T(inside + mean);
  });
  return {std::move(value), std::move(g_current)};
}

Tensor sliced_wasserstein_gradient(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p) {
  Tensor g_current = empty(current, {current.size(0), current.size(1)});
  with_dtype(current, [&]<class T>(T) {
    const auto slicing = slicing_of<T>(current, history, prior, directions, normal, p);
    Evaluation(slicing, false).run(static_cast<T*>(g_current.data_ptr()));
  });
  return g_current;
}

}  // namespace mow::cpu
