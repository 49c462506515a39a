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

// The layout of mow_kernels/running.py: for each slot, of which there are a multiple of 16, the sums over the newer rows of
// the window itself (with half of d of the row) and of the other window (N(0, I) takes the place of that: g of the row),
// and what the last evaluation would make of both; then the rows, packed, and their norms.
template <class T>
struct Sums {
  double *own, *other, *pending_own, *pending_other;
  T *rows, *norms;
  Panel<T> panel;

  Sums(const Tensor& tensor, int64_t size, int64_t dim) {
    const int64_t slots = (size + 15) / 16 * 16;
    own = static_cast<double*>(tensor.data_ptr());
    other = own + slots;
    pending_own = other + slots;
    pending_other = pending_own + slots;
    rows = reinterpret_cast<T*>(pending_other + slots);
    norms = rows + slots * dim;
    panel = {rows, norms, size};
  }
};

// A window of latents or of prior rows: what it keeps, and its fresh rows.
template <class T>
struct Side {
  const Sums<T> sums;
  const PackedRows<T> fresh;

  Side(const KeptSums& kept, int64_t size, int64_t dim) : sums(kept.sums, size, dim), fresh(rows_of<T>(kept.fresh), dim) {}
};

// The latents and, where it is kept, the prior; and the visits of fresh rows to others.
template <class T>
class Sides {
 public:
  const int64_t k, dim;
  const Side<T> latents;
  std::optional<Side<T>> prior;

  Sides(const PairwiseDistance<T>& distance, const KeptSums& latents, const std::optional<KeptSums>& prior, const Ring& ring)
      : k(latents.fresh.size(0)),
        dim(latents.fresh.size(1)),
        latents(latents, ring.size, dim),
        distance_(distance),
        visits_(prior ? 4 : 1),
        rows_(ring.rows) {
    if (prior) this->prior.emplace(*prior, ring.size, dim);
  }

  bool heavy() const { return visits_ * double(dim) * double(k) * double(rows_ + k) > kSerialWork; }

  Visit<T> visit_of(const Panel<T>& rows, int64_t first, int64_t last) const {
    Visit<T> visit{};
    visit.radial = &distance_.f.radial();
    visit.dim = dim;
    visit.rows = rows;
    visit.first = first;
    visit.last = last;
    return visit;
  }

  // The sum over the pairs of fresh rows and the columns of a panel, which is added to the sums of the columns, too.
  double add(Visit<T> visit, const Panel<T>& columns, const Span& span, Pairs pairs, double* column_sums) const {
    visit.columns = columns;
    visit.first_column = span.first;
    visit.last_column = span.last;
    visit.pairs = pairs;
    visit.column_sums = column_sums;
    return kernels<T>().visit(visit);
  }

 private:
  const PairwiseDistance<T>& distance_;
  const double visits_;
  const int64_t rows_;
};

void copy(const double* from, const Span& span, double* to) { std::copy(from + span.first, from + span.last, to + span.first); }

}  // namespace

template <class T>
std::tuple<Tensor, Tensor> evaluate_running(
    const PairwiseDistance<T>& distance, const KeptSums& kept, const std::optional<KeptSums>& kept_prior, const Ring& ring,
    bool needs_grad) {
  const Sides<T> sides(distance, kept, kept_prior, ring);
  const Side<T>& z = sides.latents;
  const Side<T>* v = sides.prior ? &*sides.prior : nullptr;
  const int64_t k = sides.k, dim = sides.dim;
  const double zz = distance.zz, vv = distance.vv, zv = distance.zv;
  Tensor value = empty(kept.fresh, {});
  Tensor g_current = needs_grad ? empty(kept.fresh, {k, dim}) : empty(kept.fresh, {0});

  // Cut by the sizes alone, so that the result does not depend on the threads.
  const int64_t size = k * dim, length = std::max(ring.size / 64, ring.size * size / kGradients) / kSpan * kSpan + kSpan;
  const std::vector<Span> history = spans(ring, length);
  const int64_t older = int64_t(history.size()), tasks = older + bands(k);
  std::vector<double> values(tasks), gradients(needs_grad ? (older + 1) * size : 0);

  // Fresh rows of both windows with a span of older ones.
  const auto with_history = [&](Visit<T> visit, const Span& span) {
    copy(z.sums.own, span, z.sums.pending_own);
    visit.weight = 2 * zz;
    const double own = sides.add(visit, z.sums.panel, span, Pairs::kAll, z.sums.pending_own) + sum(z.sums.own, span);
    if (!v) return 2 * zz * own + zv * sum(z.sums.other, span);
    copy(z.sums.other, span, z.sums.pending_other);
    copy(v->sums.own, span, v->sums.pending_own);
    copy(v->sums.other, span, v->sums.pending_other);
    visit.weight = zv;
    double cross = sides.add(visit, v->sums.panel, span, Pairs::kAll, v->sums.pending_other);
    const Visit<T> drawn = sides.visit_of(v->fresh, 0, k);
    cross += sides.add(drawn, z.sums.panel, span, Pairs::kAll, z.sums.pending_other);
    const double prior = sides.add(drawn, v->sums.panel, span, Pairs::kAll, v->sums.pending_own) + sum(v->sums.own, span);
    return 2 * zz * own + 2 * vv * prior + zv * (cross + sum(z.sums.other, span) + sum(v->sums.other, span));
  };
  // A band of fresh rows of both windows with all fresh ones. Both ends of a pair within a window come by.
  const auto with_fresh = [&](Visit<T> visit) {
    const Span all{0, k};
    visit.weight = 2 * zz;
    double total = zz * sides.add(visit, z.fresh, all, Pairs::kOthers, nullptr);
    if (distance.d) {
      visit.weight = zz;
      total += zz * kernels<T>().visit_origin(visit, distance.d->radial());
      if (v) total += vv * kernels<T>().visit_origin(sides.visit_of(v->fresh, visit.first, visit.last), distance.d->radial());
    }
    visit.weight = zv;
    if (!v) return total + zv * kernels<T>().visit_origin(visit, distance.g->radial());
    total += zv * sides.add(visit, v->fresh, all, Pairs::kAll, nullptr);
    return total + vv * sides.add(sides.visit_of(v->fresh, visit.first, visit.last), v->fresh, all, Pairs::kOthers, nullptr);
  };
  Watch watch;
  run_tasks(tasks, sides.heavy(), [&](int64_t task) {
    const int64_t band = task < older ? 0 : (task - older) * kBand;
    Visit<T> visit = sides.visit_of(z.fresh, band, task < older ? k : std::min(k, band + kBand));
    Buffer<T> scratch;
    if (needs_grad) {
      scratch = allocate<T>(kernels<T>().scratch);
      visit.scratch = scratch.get();
      visit.gradient = &gradients[task < older ? (task + 1) * size : band * dim];
    }
    values[task] = task < older ? with_history(visit, history[task]) : with_fresh(visit);
  }, &watch);

  double total = distance.constant;
  for (const double part : values) total += part;
  *static_cast<T*>(value.data_ptr()) = T(total);
  if (needs_grad) {
    T* to = static_cast<T*>(g_current.data_ptr());
    for (int64_t i = 0; i < size; ++i) {
      double gradient = 0;
      for (int64_t part = 0; part <= older; ++part) gradient += gradients[part * size + i];
      to[i] = T(gradient);
    }
  }
  return {std::move(value), std::move(g_current)};
}

template <class T>
void push_running(
    const PairwiseDistance<T>& distance, const KeptSums& kept, const std::optional<KeptSums>& kept_prior, const Ring& ring,
    bool evaluated) {
  const Sides<T> sides(distance, kept, kept_prior, ring);
  const Side<T>& z = sides.latents;
  const Side<T>* v = sides.prior ? &*sides.prior : nullptr;
  const int64_t k = sides.k, dim = sides.dim;
  const std::vector<Span> older = spans(ring, kSpan);
  run_tasks(int64_t(older.size()), sides.heavy() && !evaluated, [&](int64_t task) {
    const Span& span = older[task];
    for (const Side<T>* side : {&z, v}) {
      if (!side) continue;
      const Sums<T>& sums = side->sums;
      if (evaluated) {
        copy(sums.pending_own, span, sums.own);
        if (v) copy(sums.pending_other, span, sums.other);
        continue;
      }
      sides.add(sides.visit_of(side->fresh, 0, k), sums.panel, span, Pairs::kAll, sums.own);
      if (v) sides.add(sides.visit_of(side == v ? z.fresh : v->fresh, 0, k), sums.panel, span, Pairs::kAll, sums.other);
    }
  }, nullptr);

  const int64_t tile = kernels<T>().tile, padded = (k + kSpan - 1) / kSpan * kSpan;
  for (const Side<T>* side : {&z, v}) {
    if (!side) continue;
    const Sums<T>& sums = side->sums;
    std::vector<double> own(padded), other(padded);
    run_tasks(padded / kSpan, sides.heavy(), [&](int64_t task) {
      const Span span{task * kSpan, std::min(k, task * kSpan + kSpan)};
      if (distance.d) {
        Visit<T> visit = sides.visit_of(side->fresh, span.first, span.last);
        visit.column_sums = &own[span.first];
        kernels<T>().visit_origin(visit, distance.d->radial());
        for (int64_t row = span.first; row < span.last; ++row) own[row] /= 2;
      }
      sides.add(sides.visit_of(side->fresh, span.first, k), side->fresh, span, Pairs::kBelow, own.data());
      if (v) {  // the pair of a slot's own two rows belongs to its latent
        const bool prior = side == v;
        const Visit<T> visit = sides.visit_of(prior ? z.fresh : v->fresh, span.first, k);
        sides.add(visit, side->fresh, span, prior ? Pairs::kBelow : Pairs::kUpTo, other.data());
      } else {
        Visit<T> visit = sides.visit_of(side->fresh, span.first, span.last);
        visit.column_sums = &other[span.first];
        kernels<T>().visit_origin(visit, distance.g->radial());
      }
    }, nullptr);
    for (int64_t row = 0; row < k; ++row) {
      const int64_t slot = (ring.head + row) % ring.size;
      sums.own[slot] = own[row];
      sums.other[slot] = other[row];
      sums.norms[slot] = side->fresh.norms[row];
      const T* from = side->fresh.data + row / tile * tile * dim + row % tile;
      T* to = sums.rows + slot / tile * tile * dim + slot % tile;
      for (int64_t d = 0; d < dim; ++d) to[d * tile] = from[d * tile];
    }
  }
}

#define MOW_INSTANTIATE(T)                                                                                        \
  template std::tuple<Tensor, Tensor> evaluate_running<T>(                                                        \
      const PairwiseDistance<T>&, const KeptSums&, const std::optional<KeptSums>&, const Ring&, bool);                    \
  template void push_running<T>(                                                                                  \
      const PairwiseDistance<T>&, const KeptSums&, const std::optional<KeptSums>&, const Ring&, bool);
MOW_INSTANTIATE(float)
MOW_INSTANTIATE(double)
#undef MOW_INSTANTIATE

}  // namespace mow::cpu
