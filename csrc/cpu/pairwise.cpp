#include "cpu/pairwise.h"

#include <algorithm>
#include <vector>

#include "cpu/packed_rows.h"
#include "cpu/parallel.h"

namespace mow::cpu {
namespace {

// What a task compares its rows with begins at a multiple of this, and is about kColumns of them or more.
constexpr int64_t kAligned = 512, kColumns = 1024;

// Bands of current rows beyond which they alone are tasks enough.
constexpr int64_t kTasks = 64;

// Current rows from which on a value without a gradient takes each pair once. Its bits are others, then.
constexpr int64_t kOnce = 512;

int64_t aligned(int64_t columns) { return (columns + kAligned - 1) / kAligned * kAligned; }

// One evaluation: the packed samples, and the work cut into bands of rows. Where the current rows are few bands, what they
// meet is cut as well. Each task adds to a sum and to gradient rows of its own, which are added up in the order of the
// tasks: cut by the sizes alone, the result does not depend on the threads.
//
// Current and history are kept apart. A pair within history is visited once and only for its value; current meets every
// row from its own side, since each of its rows needs its own gradient.
template <class T>
class Evaluation {
 public:
  Evaluation(
      const PairwiseDistance<T>& distance, const Rows<T>& current, const Rows<T>& history, const Rows<T>& prior,
      int64_t dim)
      : distance_(distance),
        dim_(dim),
        current_(current, dim),
        history_(history, dim),
        prior_(prior, dim),
        current_begin_(aligned(history.count)),
        prior_begin_(current_begin_ + aligned(current.count)),
        columns_(prior_begin_ + aligned(prior.count)) {
    const int64_t wanted = std::min(kTasks / bands(current.count), (history.count + current.count + prior.count) / kColumns);
    length_ = aligned((columns_ + std::max<int64_t>(1, wanted) - 1) / std::max<int64_t>(1, wanted));
    pieces_ = (columns_ + length_ - 1) / length_;
  }

  // g_current [k, D] contiguous, or null.
  double run(T* g_current) const {
    const int64_t live = live_tasks(), history_bands = bands(history_.rows);
    std::vector<double> sums(live + history_bands + bands(prior_.rows)), gradients = gradients_of_pieces(g_current);
    Watch watch;
    run_tasks(int64_t(sums.size()), live_work() + other_work() > kSerialWork, [&](int64_t task) {
      if (task < live) {
        sums[task] = live_task(task, gradients);
      } else if (task < live + history_bands) {
        sums[task] = history_band((task - live) * kBand);
      } else {
        sums[task] = prior_band((task - live - history_bands) * kBand);
      }
    }, &watch);
    add_up(gradients, g_current);
    double value = distance_.constant;
    for (const double sum : sums) value += sum;
    return value;
  }

  // The gradient needs none of the pairs without a current row.
  void run_gradient(T* g_current) const {
    std::vector<double> gradients = gradients_of_pieces(g_current);
    Watch watch;
    run_tasks(live_tasks(), live_work() > kSerialWork, [&](int64_t task) { live_task(task, gradients); }, &watch);
    add_up(gradients, g_current);
  }

 private:
  const PairwiseDistance<T>& distance_;
  const int64_t dim_;
  const PackedRows<T> current_, history_, prior_;
  // What current rows meet, as columns in a row: history, current from here on, prior from here on, up to here.
  const int64_t current_begin_, prior_begin_, columns_;
  int64_t length_, pieces_;  // of those columns: every piece, and how many

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

  // weight * the sum over pairs of the band's rows with these columns, and its gradient.
  double add(
      Visit<T>& visit, const Panel<T>& columns, Pairs pairs, double weight, double gradient_weight, int64_t first,
      int64_t last) const {
    visit.columns = columns;
    visit.first_column = std::max<int64_t>(first, 0);
    visit.last_column = std::min(last, columns.rows);
    if (visit.first_column >= visit.last_column) return 0;
    visit.pairs = pairs;
    visit.weight = gradient_weight;
    return weight * kernels<T>().visit(visit);
  }

  // What the rows of a band have by themselves; `within` is the weight of the pairs within their sample.
  double add_alone(Visit<T> visit, double within, const std::optional<RadialNumbers<double>>& g) const {
    double sum = 0;
    if (g) {
      visit.weight = distance_.zv;
      sum += distance_.zv * kernels<T>().visit_origin(visit, g->radial());
    }
    if (distance_.d) {
      visit.weight = within;
      sum += within * kernels<T>().visit_origin(visit, distance_.d->radial());
    }
    return sum;
  }

  int64_t live_tasks() const { return bands(current_.rows) * pieces_; }

  std::vector<double> gradients_of_pieces(const T* g_current) const {
    return std::vector<double>(g_current ? pieces_ * current_.rows * dim_ : 0);
  }

  void add_up(const std::vector<double>& gradients, T* g_current) const {
    const int64_t size = g_current ? current_.rows * dim_ : 0;
    for (int64_t i = 0; i < size; ++i) {
      double gradient = gradients[i];
      for (int64_t piece = 1; piece < pieces_; ++piece) gradient += gradients[piece * size + i];
      g_current[i] = T(gradient);
    }
  }

  // A band of current rows with a piece of the columns.
  double live_task(int64_t task, std::vector<double>& gradients) const {
    const int64_t piece = task % pieces_, begin = piece * length_, end = begin + length_;
    Visit<T> visit = visit_of(current_, task / pieces_ * kBand);
    Buffer<T> scratch;
    if (!gradients.empty()) {
      scratch = allocate<T>(kernels<T>().scratch);
      visit.gradient = &gradients[(piece * current_.rows + visit.first) * dim_];
      visit.scratch = scratch.get();
    }
    const double zz = distance_.zz, zv = distance_.zv;
    double sum = add(visit, history_, Pairs::kAll, 2 * zz, 2 * zz, begin, end);
    // For a gradient both ends of a pair come by, and without one too, to the same bits, unless that takes long.
    const bool once = gradients.empty() && current_.rows >= kOnce;
    sum += add(
        visit, current_, once ? Pairs::kBelow : Pairs::kOthers, once ? 2 * zz : zz, 2 * zz, begin - current_begin_,
        end - current_begin_);
    sum += add(visit, prior_, Pairs::kAll, zv, zv, begin - prior_begin_, end - prior_begin_);
    return piece == 0 ? sum + add_alone(visit, zz, distance_.g) : sum;
  }

  double history_band(int64_t first) const {
    Visit<T> visit = visit_of(history_, first);
    return add(visit, history_, Pairs::kBelow, 2 * distance_.zz, 0, 0, history_.rows) +
           add(visit, prior_, Pairs::kAll, distance_.zv, 0, 0, prior_.rows) +
           add_alone(visit, distance_.zz, distance_.g);
  }

  double prior_band(int64_t first) const {
    Visit<T> visit = visit_of(prior_, first);
    return add(visit, prior_, Pairs::kBelow, 2 * distance_.vv, 0, 0, prior_.rows) +
           add_alone(visit, distance_.vv, {});
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
      distance, rows_of<T>(current), rows_of<T>(history), rows_of<T>(prior), dim);
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
      distance, rows_of<T>(current), rows_of<T>(history), rows_of<T>(prior), dim);
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
