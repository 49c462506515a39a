#include "cpu/pairwise.h"

#include <algorithm>
#include <vector>

#include "cpu/packed_rows.h"
#include "cpu/parallel.h"

namespace mow::cpu {
namespace {

// One evaluation: the packed samples, and the work cut into bands of rows, each of which adds to a sum and to gradient
// rows of its own. The sums are added up in the order of the bands, so the result does not depend on the threads.
//
// Current and history are kept apart. A pair within history is visited once and only for its value; current meets every
// row from its own side, since each of its rows needs its own gradient.
template <class T>
class Evaluation {
 public:
  Evaluation(
      const PairwiseDistance<T>& distance, const Rows<T>& current, const Rows<T>& history, const Rows<T>& prior,
      int64_t dim)
      : distance_(distance), dim_(dim), current_(current, dim), history_(history, dim), prior_(prior, dim) {}

  // g_current [k, D] contiguous, or null.
  double run(T* g_current) const {
    const int64_t current_bands = bands(current_.rows), history_bands = bands(history_.rows);
    std::vector<double> sums(current_bands + history_bands + bands(prior_.rows));
    run_tasks(int64_t(sums.size()), live_work() + other_work() > kSerialWork, [&](int64_t task) {
      if (task < current_bands) {
        sums[task] = current_band(task * kBand, g_current);
      } else if (task < current_bands + history_bands) {
        sums[task] = history_band((task - current_bands) * kBand);
      } else {
        sums[task] = prior_band((task - current_bands - history_bands) * kBand);
      }
    });
    double value = distance_.constant;
    for (const double sum : sums) value += sum;
    return value;
  }

  // The gradient needs none of the pairs without a current row.
  void run_gradient(T* g_current) const {
    run_tasks(bands(current_.rows), live_work() > kSerialWork, [&](int64_t task) { current_band(task * kBand, g_current); });
  }

 private:
  const PairwiseDistance<T>& distance_;
  const int64_t dim_;
  const PackedRows<T> current_, history_, prior_;

  double live_work() const {
    return double(dim_) * double(current_.rows) * double(history_.rows + current_.rows + prior_.rows);
  }

  double other_work() const {
    const double h = double(history_.rows), m = double(prior_.rows);
    return double(dim_) * (h * h / 2 + h * m + m * m / 2);
  }

  Visit<T> visit_of(const Panel<T>& rows, int64_t first) const {
    Visit<T> visit{};
    visit.radial = &distance_.f.radial();
    visit.dim = dim_;
    visit.rows = rows;
    visit.first = first;
    visit.last = std::min(first + kBand, rows.rows);
    return visit;
  }

  // weight * the sum over pairs of the band's rows with all columns, and its gradient.
  double add(Visit<T>& visit, const Panel<T>& columns, Pairs pairs, double weight, double gradient_weight) const {
    visit.columns = columns;
    visit.last_column = columns.rows;
    visit.pairs = pairs;
    visit.weight = gradient_weight;
    return weight * kernels<T>().visit(visit);
  }

  double add_origin(Visit<T> visit) const {
    if (!distance_.g) return 0;
    visit.weight = distance_.zv;
    return distance_.zv * kernels<T>().visit_origin(visit, distance_.g->radial());
  }

  double current_band(int64_t first, T* g_current) const {
    Visit<T> visit = visit_of(current_, first);
    const int64_t size = (visit.last - first) * dim_;
    std::vector<double> gradient(g_current ? size : 0);
    Buffer<T> scratch;
    if (g_current) {
      scratch = allocate<T>(kernels<T>().scratch);
      visit.gradient = gradient.data();
      visit.scratch = scratch.get();
    }
    const double zz = distance_.zz, zv = distance_.zv;
    double sum = add(visit, history_, Pairs::kAll, 2 * zz, 2 * zz);
    sum += add(visit, current_, Pairs::kOthers, zz, 2 * zz);  // both ends of a pair come by
    sum += add(visit, prior_, Pairs::kAll, zv, zv);
    sum += add_origin(visit);
    if (g_current) std::copy(gradient.begin(), gradient.end(), g_current + first * dim_);
    return sum;
  }

  double history_band(int64_t first) const {
    Visit<T> visit = visit_of(history_, first);
    return add(visit, history_, Pairs::kBelow, 2 * distance_.zz, 0) + add(visit, prior_, Pairs::kAll, distance_.zv, 0) +
           add_origin(visit);
  }

  double prior_band(int64_t first) const {
    Visit<T> visit = visit_of(prior_, first);
    return add(visit, prior_, Pairs::kBelow, 2 * distance_.vv, 0);
  }
};

}  // namespace

template <class T>
std::tuple<Tensor, Tensor> evaluate(
    const PairwiseDistance<T>& distance, const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior,
    bool needs_grad) {
  const int64_t k = current.size(0), dim = current.size(1);
  Tensor value = empty(current, {});
  Tensor g_current = needs_grad ? empty(current, {k, dim}) : empty(current, {0});
  const Evaluation<T> evaluation(
      distance, Rows<T>(current), Rows<T>(history), prior ? Rows<T>(*prior) : Rows<T>(), dim);
  T* gradient = needs_grad ? static_cast<T*>(g_current.data_ptr()) : nullptr;
  *static_cast<T*>(value.data_ptr()) = T(evaluation.run(gradient));
  return {std::move(value), std::move(g_current)};
}

template <class T>
Tensor gradient(
    const PairwiseDistance<T>& distance, const Tensor& current, const Tensor& history, const std::optional<Tensor>& prior) {
  const int64_t dim = current.size(1);
  Tensor g_current = empty(current, {current.size(0), dim});
  const Evaluation<T> evaluation(
      distance, Rows<T>(current), Rows<T>(history), prior ? Rows<T>(*prior) : Rows<T>(), dim);
  evaluation.run_gradient(static_cast<T*>(g_current.data_ptr()));
  return g_current;
}

#define MOW_INSTANTIATE(T)                                                                                          \
  template std::tuple<Tensor, Tensor> evaluate<T>(                                                                  \
      const PairwiseDistance<T>&, const Tensor&, const Tensor&, const std::optional<Tensor>&, bool);                \
  template Tensor gradient<T>(                                                                                      \
      const PairwiseDistance<T>&, const Tensor&, const Tensor&, const std::optional<Tensor>&);
MOW_INSTANTIATE(float)
MOW_INSTANTIATE(double)
#undef MOW_INSTANTIATE

}  // namespace mow::cpu
