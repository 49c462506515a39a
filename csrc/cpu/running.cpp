#include "cpu/running.h"

#include <algorithm>
#include <vector>

#include "cpu/packed_rows.h"
#include "cpu/parallel.h"

namespace mow::cpu {
namespace {

// Columns of a task are a multiple of this.
constexpr int64_t kSpan = 512;

// Numbers that the gradients of all tasks may take together.
constexpr int64_t kGradients = 1 << 21;

struct Span {
  int64_t first, last;
};

// The slots of the ring in ascending order, cut at multiples of `length`.
std::vector<Span> spans(const Ring& ring, int64_t length) {
  std::vector<Span> found;
  const auto cut = [&](int64_t first, int64_t last) {
    for (int64_t end; first < last; first = end) {
      end = std::min(last, first / length * length + length);
      found.push_back({first, end});
    }
  };
  const int64_t first = ring.head - ring.rows;
  cut(0, first < 0 ? ring.head : 0);
  cut(first < 0 ? first + ring.size : first, first < 0 ? ring.size : ring.head);
  return found;
}

// In a fixed order that leaves the additions independent of each other.
double sum(const double* numbers, const Span& span) {
  double lanes[8] = {};
  for (int64_t i = span.first; i < span.last; ++i) lanes[i % 8] += numbers[i];
  double total = 0;
  for (const double lane : lanes) total += lane;
  return total;
}

// What mow_kernels/running.py allocates: for each slot, of which there are a multiple of 16, the sum over the newer rows,
// what the last evaluation would make of it, and g; then the rows, packed, and their norms.
template <class T>
struct Sums {
  double *newer, *pending, *origin;
  T *rows, *norms;
  Panel<T> panel;

  Sums(const Tensor& tensor, int64_t size, int64_t dim) {
    const int64_t slots = (size + 15) / 16 * 16;
    newer = static_cast<double*>(tensor.data_ptr());
    pending = newer + slots;
    origin = pending + slots;
    rows = reinterpret_cast<T*>(origin + slots);
    norms = rows + slots * dim;
    panel = {rows, norms, size};
  }
};

template <class T>
Visit<T> visit_of(const PairwiseDistance<T>& distance, int64_t dim, const Panel<T>& rows, int64_t first, int64_t last) {
  Visit<T> visit{};
  visit.radial = &distance.f.radial();
  visit.dim = dim;
  visit.rows = rows;
  visit.first = first;
  visit.last = last;
  return visit;
}

template <class T>
void over(Visit<T>& visit, const Panel<T>& columns, const Span& span, Pairs pairs) {
  visit.columns = columns;
  visit.first_column = span.first;
  visit.last_column = span.last;
  visit.pairs = pairs;
}

}  // namespace

template <class T>
std::tuple<Tensor, Tensor> evaluate_running(
    const PairwiseDistance<T>& distance, const Tensor& tensor, const Tensor& current, const Ring& ring, bool needs_grad) {
  const int64_t k = current.size(0), dim = current.size(1);
  const Sums<T> sums(tensor, ring.size, dim);
  const PackedRows<T> packed(Rows<T>(current), dim);
  Tensor value = empty(current, {});
  Tensor g_current = needs_grad ? empty(current, {k, dim}) : empty(current, {0});

  // Cut by the sizes alone, so that the result does not depend on the threads.
  const int64_t size = k * dim, length = std::max(ring.size / 64, ring.size * size / kGradients) / kSpan * kSpan + kSpan;
  const std::vector<Span> history = spans(ring, length);
  const int64_t tasks = int64_t(history.size()) + bands(k);
  std::vector<double> values(tasks), gradients(needs_grad ? (history.size() + 1) * size : 0);
  const bool parallel = 2.0 * double(dim) * double(k) * double(ring.rows + k) > kSerialWork;
  run_tasks(tasks, parallel, [&](int64_t task) {
    const bool older = task < int64_t(history.size());
    const int64_t band = older ? 0 : (task - int64_t(history.size())) * kBand;
    Visit<T> visit = visit_of(distance, dim, packed, band, older ? k : std::min(k, band + kBand));
    Buffer<T> scratch;
    if (needs_grad) {
      scratch = allocate<T>(kernels<T>().scratch);
      visit.scratch = scratch.get();
      visit.gradient = &gradients[older ? (task + 1) * size : band * dim];
    }
    visit.weight = 2 * distance.zz;
    if (older) {
      const Span& span = history[task];
      std::copy(sums.newer + span.first, sums.newer + span.last, sums.pending + span.first);
      visit.column_sums = sums.pending;
      over(visit, sums.panel, span, Pairs::kAll);
      values[task] = 2 * distance.zz * (kernels<T>().visit(visit) + sum(sums.newer, span)) +
                     distance.zv * sum(sums.origin, span);
    } else {
      over<T>(visit, packed, {0, k}, Pairs::kOthers);
      values[task] = distance.zz * kernels<T>().visit(visit);  // both ends of a pair come by
      visit.weight = distance.zv;
      values[task] += distance.zv * kernels<T>().visit_origin(visit, distance.g->radial());
    }
  });

  double total = distance.constant;
  for (const double part : values) total += part;
  *static_cast<T*>(value.data_ptr()) = T(total);
  if (needs_grad) {
    T* to = static_cast<T*>(g_current.data_ptr());
    for (int64_t i = 0; i < size; ++i) {
      double gradient = 0;
      for (size_t part = 0; part <= history.size(); ++part) gradient += gradients[part * size + i];
      to[i] = T(gradient);
    }
  }
  return {std::move(value), std::move(g_current)};
}

template <class T>
void push_running(
    const PairwiseDistance<T>& distance, const Tensor& tensor, const Tensor& rows, const Ring& ring, bool evaluated) {
  const int64_t k = rows.size(0), dim = rows.size(1);
  const Sums<T> sums(tensor, ring.size, dim);
  const PackedRows<T> packed(Rows<T>(rows), dim);
  const std::vector<Span> kept = spans(ring, kSpan);
  const bool parallel = double(dim) * double(k) * double(ring.rows + k) > kSerialWork;
  run_tasks(int64_t(kept.size()), parallel && !evaluated, [&](int64_t task) {
    const Span& span = kept[task];
    if (evaluated) {
      std::copy(sums.pending + span.first, sums.pending + span.last, sums.newer + span.first);
      return;
    }
    Visit<T> visit = visit_of<T>(distance, dim, packed, 0, k);
    visit.column_sums = sums.newer;
    over(visit, sums.panel, span, Pairs::kAll);
    kernels<T>().visit(visit);
  });

  const int64_t tile = kernels<T>().tile, padded = (k + kSpan - 1) / kSpan * kSpan;
  std::vector<double> newer(padded), origin(padded);
  run_tasks(padded / kSpan, parallel, [&](int64_t task) {
    const int64_t first = task * kSpan, last = std::min(k, first + kSpan);
    Visit<T> visit = visit_of<T>(distance, dim, packed, first, k);
    visit.column_sums = newer.data();
    over<T>(visit, packed, {first, last}, Pairs::kBelow);
    kernels<T>().visit(visit);
    visit.last = last;
    visit.column_sums = &origin[first];
    kernels<T>().visit_origin(visit, distance.g->radial());
  });
  for (int64_t row = 0; row < k; ++row) {
    const int64_t slot = (ring.head + row) % ring.size;
    sums.newer[slot] = newer[row];
    sums.origin[slot] = origin[row];
    sums.norms[slot] = packed.norms[row];
    const T* from = packed.data + row / tile * tile * dim + row % tile;
    T* to = sums.rows + slot / tile * tile * dim + slot % tile;
    for (int64_t d = 0; d < dim; ++d) to[d * tile] = from[d * tile];
  }
}

#define MOW_INSTANTIATE(T)                                                                                       \
  template std::tuple<Tensor, Tensor> evaluate_running<T>(                                                       \
      const PairwiseDistance<T>&, const Tensor&, const Tensor&, const Ring&, bool);                              \
  template void push_running<T>(const PairwiseDistance<T>&, const Tensor&, const Tensor&, const Ring&, bool);
MOW_INSTANTIATE(float)
MOW_INSTANTIATE(double)
#undef MOW_INSTANTIATE

}  // namespace mow::cpu
