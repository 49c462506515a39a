// The sliced-Wasserstein op: independent tasks project a sample on a few groups of directions and sort it there, others
// match the samples; sums in a fixed order.

#include "cpu/sliced_wasserstein.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "common/ranking.h"
#include "cpu/buffer.h"
#include "cpu/parallel.h"
#include "cpu/sliced_wasserstein_sorted.h"

namespace mow::cpu {
namespace {

// Directions whose slopes [k, directions] are held at once.
constexpr int64_t kChunk = 256;

// Projections of so many bytes for each thread are held at once, which its cache still has when they are matched; a task
// projects on at most so many groups of directions, for all of which it reads the sample once.
constexpr int64_t kMostBytes = int64_t{9} << 18, kMostGroups = 4;

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
        m_(s_.prior.rows),
        samples_(s_.normal ? 1 : 2) {
    // Roughly: a multiply-add per number, and the network's levels of comparators.
    const double levels = std::pow(std::log2(double(n_)), 2);
    const double cycles = double(n_ + m_) * (double(dim_) + levels) * double(ceil_divide(count_, lanes_));
    parallel_ = cycles > 2e5;
    // A pass over the window for each current row takes less than sorting it, if there are few.
    sorted_ = measured_ || 2 * double(k_) > levels;
  }

  // The mean over the directions, if it was wanted; g_current [k, D] is left alone where it is null.
  double run(T* g_current) const {
    const int64_t chunk = std::min(kChunk, ceil_divide(count_, lanes_) * lanes_), most = groups_at_once(chunk / lanes_);
    const auto costs = allocate<double>(chunk);
    const auto slopes = allocate<T>(g_current ? k_ * chunk : 0);
    const auto keys = allocate<SignedKey<T>>(most * keys_of_group());
    double sum = 0;
    for (int64_t first = 0; first < count_; first += chunk) {
      const int64_t here = std::min(chunk, count_ - first);
      for (int64_t lane = 0; lane < here; lane += most * lanes_) {
        const int64_t groups = std::min(most, ceil_divide(here - lane, lanes_));
        project_and_sort(first + lane, groups, keys.get());
        match(first + lane, groups, keys.get(), &costs[lane], g_current ? &slopes[lane] : nullptr, chunk);
      }
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
  const int64_t dim_, count_, h_, k_, n_, m_, samples_;
  bool parallel_, sorted_;
  mutable Watch watch_;

  int64_t threads() const { return parallel_ ? int64_t(torch::stable::get_num_threads()) : 1; }

  // The window, the prior, and the current rows with their ranks.
  int64_t keys_of_group() const { return (n_ + m_ + 2 * k_) * lanes_; }

  // Every direction is computed alone: how many groups of them are taken together changes no bit.
  int64_t groups_at_once(int64_t groups) const {
    const int64_t fitting = threads() * kMostBytes / (keys_of_group() * int64_t(sizeof(T)));
    return std::clamp<int64_t>(fitting, std::min(groups, ceil_divide(threads(), samples_)), groups);
  }

  Group<T> group(int64_t first, int64_t i, SignedKey<T>* keys) const {
    SignedKey<T>*const window = keys + i * keys_of_group(), *const prior = window + n_ * lanes_;
    SignedKey<T>*const current = prior + m_ * lanes_, *const ranks = current + k_ * lanes_;
    return {first + i * lanes_, sorted_, window, s_.normal ? nullptr : prior, current, ranks};
  }

  // The groups from direction `first` on: tasks for the window, then as many for the prior.
  void project_and_sort(int64_t first, int64_t groups, SignedKey<T>* keys) const {
    const int64_t together = std::clamp<int64_t>(samples_ * groups / threads(), 1, std::min(groups, kMostGroups));
    const int64_t parts = ceil_divide(groups, together), stride = keys_of_group() / lanes_;
    run_tasks(samples_ * parts, parallel_, [&](int64_t task) {
      const bool of_window = task < parts;
      const int64_t begin = task % parts * together, end = std::min(begin + together, groups);
      const Group<T> to = group(first, begin, keys);
      if (of_window) {
        const Projected<T> window[] = {{s_.history, to.window, stride}, {s_.current, to.window + h_ * lanes_, stride}};
        kernels_.project(window, 2, s_.directions, to.first, end - begin);
      } else {
        const Projected<T> prior{s_.prior, to.prior, stride};
        kernels_.project(&prior, 1, s_.directions, to.first, end - begin);
      }
      for (int64_t i = begin; i < end; ++i) {
        const Group<T> g = group(first, i, keys);
        if (of_window) std::copy_n(g.window + h_ * lanes_, k_ * lanes_, g.current);
        if (sorted_ || !of_window) {
          kernels_.sort(of_window ? g.window : g.prior, of_window ? n_ : m_, std::min(lanes_, count_ - g.first));
        }
      }
    }, &watch_);
  }

  void match(
      int64_t first, int64_t groups, SignedKey<T>* keys, double* costs, T* slopes, int64_t slope_stride) const {
    run_tasks(groups, parallel_, [&](int64_t i) {
      const int64_t lane = i * lanes_;
      kernels_.match(
          s_, group(first, i, keys), 1.0 / count_, measured_ ? costs + lane : nullptr, slopes ? slopes + lane : nullptr,
          slope_stride);
    }, &watch_);
  }

  // The gradient: slopes [k, l] on the directions from `first` on, l of them.
  void spread(const Matrix<T>& slopes, int64_t first, T* g_current) const {
    const bool heavy = double(k_) * double(dim_) * double(slopes.columns) > 4e6;
    const Matrix<T> directions = columns(s_.directions, first, slopes.columns);
    run_tasks(ceil_divide(k_, lanes_), parallel_ && heavy, [&](int64_t task) {
      kernels_.spread(slopes, directions, task * lanes_, first > 0, g_current);
    }, &watch_);
  }
};

// Directions [D, L] as they are; draws [1, D, L] divided by their norms.
template <class T>
class Directions {
 public:
  explicit Directions(const Tensor& given) {
    if (given.dim() == 2) {
      matrix = cpu::matrix<T>(given);
      return;
    }
    const T* const drawn = static_cast<const T*>(given.data_ptr());
    const int64_t dim = given.size(1), count = given.size(2), row = given.stride(1), column = given.stride(2);
    memory_ = allocate<T>((dim + 1) * count);
    T *const unit = memory_.get(), *const norms = unit + dim * count;
    std::fill_n(norms, count, T(0));
    for (int64_t d = 0; d < dim; ++d) {
      for (int64_t l = 0; l < count; ++l) {
        const T x = unit[d * count + l] = drawn[d * row + l * column];
        norms[l] += x * x;
      }
    }
    for (int64_t l = 0; l < count; ++l) norms[l] = norm_of_draw(norms[l]);
    for (int64_t d = 0; d < dim; ++d) {
      for (int64_t l = 0; l < count; ++l) unit[d * count + l] /= norms[l];
    }
    matrix = {unit, dim, count, count, 1};
  }

  Matrix<T> matrix;

 private:
  Buffer<T> memory_;
};

template <class T>
Slicing<T> slicing_of(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Directions<T>& directions,
    const std::optional<Tensor>& normal, double p) {
  const int64_t n = history.size(0) + current.size(0);
  STD_TORCH_CHECK(n < kMostRows, "the window has ", n, " rows; backend \"cpp\" takes fewer than ", kMostRows);
  return {
      matrix<T>(history), matrix<T>(current), prior ? matrix<T>(*prior) : Matrix<T>{},
      prior ? nullptr : static_cast<const double*>(normal->data_ptr()) + 1, directions.matrix, p};
}

// normal, where there is no prior: float64 [1 + n], the mean variance of N(0, 1) inside n equal quantile bins, then the
// bins' means, ascending.
std::tuple<Tensor, Tensor> sliced_wasserstein_fwd(
    const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior, const Tensor& directions,
    const std::optional<Tensor>& normal, double p, bool needs_grad) {
  Tensor value = empty(current, {});
  Tensor g_current = needs_grad ? empty(current, {current.size(0), current.size(1)}) : empty(current, {0});
  with_dtype(current, [&]<class T>(T) {
    const Directions<T> axes(directions);
    const auto slicing = slicing_of<T>(current, history, prior, axes, normal, p);
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
    const Directions<T> axes(directions);
    const auto slicing = slicing_of<T>(current, history, prior, axes, normal, p);
    Evaluation(slicing, false).run(static_cast<T*>(g_current.data_ptr()));
  });
  return g_current;
}

std::tuple<Tensor, Tensor> sliced_wasserstein_sorted_fwd(
    const Tensor& keys, const Tensor& current, int64_t size, int64_t head, int64_t rows, int64_t list,
    const Tensor& directions, const Tensor& normal, bool needs_grad) {
  return with_dtype(current, [&]<class T>(T) {
    return evaluate_sorted<T>({keys, size, head, rows, list}, current, directions, normal, needs_grad);
  });
}

void sliced_wasserstein_sorted_push(
    const Tensor& keys, const Tensor& rows, int64_t size, int64_t head, int64_t older, int64_t list,
    const Tensor& directions, bool evaluated) {
  with_dtype(rows, [&]<class T>(T) { push_sorted<T>({keys, size, head, older, list}, rows, directions, evaluated); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CPU, m) {
  m.impl("sliced_wasserstein_fwd", TORCH_BOX(&sliced_wasserstein_fwd));
  m.impl("sliced_wasserstein_gradient", TORCH_BOX(&sliced_wasserstein_gradient));
  m.impl("sliced_wasserstein_sorted_fwd", TORCH_BOX(&sliced_wasserstein_sorted_fwd));
  m.impl("sliced_wasserstein_sorted_push", TORCH_BOX(&sliced_wasserstein_sorted_push));
}

}  // namespace mow::cpu
