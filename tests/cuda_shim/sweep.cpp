// Runs every kernel over sizes around its edges, for the sanitizers: all input lies in memory of exactly its size, and
// what nobody has written is NaN. The bits must not depend on the order in which the threads take turns.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cuda/cramer_wold.h"
#include "cuda/k_center.h"
#include "cuda/mmd.h"
#include "cuda/ring.h"
#include "cuda/sliced_wasserstein.h"

extern "C" void cuda_shim_turn(int major_capability, int order);
extern "C" void cuda_shim_skip(const char* site);
extern "C" void cuda_shim_print_sites();

namespace {

using namespace mow;

template <class T>
std::vector<T> draw(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<T> numbers(static_cast<size_t>(count));
  for (T& x : numbers) x = T(normal(generator));
  return numbers;
}

template <class T>
Rows<T> rows_of(const std::vector<T>& numbers, int64_t dim) {
  return {numbers.data(), int64_t(numbers.size()) / dim, dim, 1};
}

template <class T>
struct Problem {
  int64_t n, k, m, dim;
  bool needs_grad, needs_value = true;
  std::vector<T> current = draw<T>(k * dim, 1), history = draw<T>((n - k) * dim, 2), prior = draw<T>(m * dim, 3);
  std::vector<T> value = {}, g_current = {};

  cuda::Samples<T> samples() const { return {rows_of(current, dim), rows_of(history, dim), rows_of(prior, dim), dim}; }

  cuda::Results<T> results() {
    constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    value.assign(1, nan);
    g_current.assign(needs_grad ? size_t(k * dim) : 0, nan);
    return {needs_value ? value.data() : nullptr, needs_grad ? g_current.data() : nullptr};
  }
};

int failures = 0;

// run(problem) in several orders of turns, on devices with clusters and without; and the gradient alone.
template <class T, class Run>
void check(const char* name, Problem<T> problem, const Run& run) {
  for (const int major : {8, 9}) {
    std::vector<T> value, g_current;
    const auto fail = [&](const char* what) {
      failures += 1;
      std::printf(
          "%s: n %ld, k %ld, m %ld, D %ld, %zu bytes, major %d, %s\n", name, long(problem.n), long(problem.k),
          long(problem.m), long(problem.dim), sizeof(T), major, what);
    };
    for (int order = 0; order < major - 6; ++order) {
      cuda_shim_turn(major, order);
      bool good = run(problem) == cudaSuccess && std::isfinite(problem.value[0]);
      for (const T x : problem.g_current) good &= std::isfinite(x);
      if (order == 0) value = problem.value, g_current = problem.g_current;
      good &= value == problem.value && g_current == problem.g_current;
      if (!good) fail("another order");
    }
    if (!problem.needs_grad) continue;
    Problem<T> alone = problem;
    alone.needs_value = false;
    if (run(alone) != cudaSuccess || alone.g_current != g_current) fail("the gradient alone");
  }
}

std::vector<unsigned char> scratch(int64_t bytes) { return std::vector<unsigned char>(size_t(bytes), 0xff); }

// Two scales; the closed forms' numbers are of no matter here, but there must be as many.
const std::vector<double> imq{0, 0, 2, 1, 4, 0.5, 2, 0, 0.3, 0.2, 0.3, 0.2}, gaussian{1, 0, 2, 1, 2, 0.5, 0.4, 0.3, 0.2, 0.1};

template <class T>
cudaError_t run_mmd(const std::vector<double>& table, Problem<T>& p) {
  auto memory = scratch(cuda::pairwise_scratch(p.samples(), p.needs_grad));
  return cuda::mmd(MmdTable(table.data(), int64_t(table.size())), p.samples(), p.results(), memory.data(), nullptr);
}

template <class T>
void sweep_sliced(const Problem<T>& problem) {
  const std::vector<T> directions = draw<T>(3 * problem.dim, 4);
  const std::vector<double> bins = draw<double>(1 + problem.n, 5);
  check("sliced_wasserstein", problem, [&](Problem<T>& p) {
    const double* const normal = p.m > 0 ? nullptr : bins.data();
    const cuda::Sliced<T> sliced{p.samples(), rows_of(directions, p.dim), normal, 2, p.results()};
    auto memory = scratch(cuda::sliced_scratch(sliced));
    return cuda::sliced_wasserstein(sliced, memory.data(), nullptr);
  });
}

template <class T>
void sweep(int64_t n, int64_t k, int64_t m, int64_t dim, bool needs_grad) {
  const Problem<T> problem{n, k, m, dim, needs_grad};
  check("imq", problem, [](Problem<T>& p) { return run_mmd(imq, p); });
  check("gaussian", problem, [](Problem<T>& p) { return run_mmd(gaussian, p); });

  const std::vector<double> powers{double(dim), 0, 0.5, 0.3, 0.3, 0.2}, chebyshev{double(dim), 1, 0.5, 0.3, 0.3, 0.2};
  for (const auto* phi : {&powers, &chebyshev}) {
    check("cramer_wold", problem, [&](Problem<T>& p) {
      auto memory = scratch(cuda::pairwise_scratch(p.samples(), p.needs_grad));
      const CramerWoldTable table{phi->data(), int64_t(phi->size())};
      return cuda::cramer_wold(table, 0.3, p.samples(), p.results(), memory.data(), nullptr);
    });
  }

  sweep_sliced(problem);
}

template <class T>
void sweep_centers(int64_t count, int64_t dim, int64_t k, const std::vector<int64_t>& given = {}) {
  const std::vector<T> x = draw<T>(count * dim, 6);
  std::vector<int64_t> first;
  for (int order = 0; order < 3; ++order) {
    cuda_shim_turn(9, order);
    std::vector<int64_t> indices(k, -1), counts(k, -1);
    T squared_radius = std::numeric_limits<T>::quiet_NaN();
    auto memory = scratch(cuda::k_center_scratch<T>(count, dim));
    const cuda::Centers<T> centers{indices.data(), &squared_radius, counts.data()};
    const bool done = cuda::k_center(rows_of(x, dim), dim, k, 0, given.data(), int64_t(given.size()), centers, memory.data(), nullptr) == cudaSuccess;
    if (order == 0) first = indices;
    if (done && indices == first && std::isfinite(squared_radius)) continue;
    failures += 1;
    std::printf("k_center: n %ld, k %ld, D %ld, order %d\n", long(count), long(k), long(dim), order);
  }
}

// A window that is kept: filled, measured, pushed and measured again.
template <class T>
void sweep_running(int64_t size, int64_t k, int64_t dim, bool sampled) {
  const std::vector<T> rows = draw<T>(size * dim, 7), fresh = draw<T>(k * dim, 8), drawn = draw<T>(size * dim, 9);
  const std::vector<double> table{0, 0, 2, 1, 4, 0.5, 2, 0, 0.3, 0.2, 0.3, 0.2};
  const int64_t slots = cuda::kept_slots(size);
  std::vector<T> first;
  for (int order = 0; order < 3; ++order) {
    cuda_shim_turn(9, order);
    std::vector<double> sums(size_t(slots * (4 + dim))), prior_sums(sums);
    const auto kept = [&](std::vector<double>& memory) { return cuda::KeptRows<T>::of(memory.data(), size); };
    cuda::RunningCall<T> call{kept(sums), sampled ? kept(prior_sums) : cuda::KeptRows<T>{}, rows_of(rows, dim), {}, size, 0, dim};
    if (sampled) call.drawn = rows_of(drawn, dim);
    bool good = cuda::push_running(call, size / 2, nullptr) == cudaSuccess;
    std::vector<T> results;
    for (int step = 0; step < 2; ++step) {
      call.current = rows_of(fresh, dim), call.rows = size - k, call.drawn.count = k;
      std::vector<T> value(1), g_current(size_t(k * dim));
      auto memory = scratch(cuda::running_scratch(size, k, dim, sampled));
      good &= cuda::mmd_running(
                  MmdTable(table.data(), int64_t(table.size())), call, {value.data(), g_current.data()}, memory.data(),
                  nullptr) == cudaSuccess;
      results.insert(results.end(), value.begin(), value.end());
      results.insert(results.end(), g_current.begin(), g_current.end());
      good &= cuda::push_running(call, 0, nullptr) == cudaSuccess;
    }
    for (const T x : results) good &= std::isfinite(x);
    if (order == 0) first = results;
    if (good && results == first) continue;
    failures += 1;
    std::printf("running: n %ld, k %ld, D %ld, sampled %d, order %d\n", long(size), long(k), long(dim), sampled, order);
  }
}

// Projections that are kept sorted: filled, measured, pushed as measured, measured, and others pushed.
template <class T>
void sweep_sorted(int64_t size, int64_t k, int64_t dim, int64_t count) {
  const std::vector<T> rows = draw<T>(size * dim, 11), fresh = draw<T>(k * dim, 12), directions = draw<T>(count * dim, 13);
  const std::vector<double> bins = draw<double>(1 + size, 14);
  std::vector<T> first;
  for (int order = 0; order < 3; ++order) {
    cuda_shim_turn(9, order);
    std::vector<T> kept(size_t(3 * count * size) + 8), results;
    const auto window = [&](const std::vector<T>& given, int64_t present) {
      return cuda::SortedWindow<T>::of(kept.data(), size, size / 2, present, dim, rows_of(given, dim), rows_of(directions, dim));
    };
    const auto push = [&](const std::vector<T>& given, int64_t present, bool evaluated) {
      auto memory = scratch(cuda::sorted_scratch(window(given, present), false));
      return cuda::push_sorted(window(given, present), evaluated, memory.data(), nullptr) == cudaSuccess;
    };
    bool good = push(rows, 0, false);
    for (const bool evaluated : {true, false}) {
      std::vector<T> value(1), g_current(fresh.size());
      auto memory = scratch(cuda::sorted_scratch(window(fresh, size), true));
      good &= cuda::evaluate_sorted(
                  window(fresh, size), bins.data(), {value.data(), g_current.data()}, memory.data(), nullptr) == cudaSuccess;
      results.insert(results.end(), value.begin(), value.end());
      results.insert(results.end(), g_current.begin(), g_current.end());
      good &= push(fresh, size, evaluated);
    }
    for (const T x : results) good &= std::isfinite(x);
    if (order == 0) first = results;
    if (good && results == first) continue;
    failures += 1;
    std::printf("sorted: n %ld, k %ld, D %ld, L %ld, order %d\n", long(size), long(k), long(dim), long(count), order);
  }
}

// Rows into a ring and out of it again.
template <class T>
void sweep_ring(int64_t size, int64_t k, int64_t dim) {
  const std::vector<T> fresh = draw<T>(k * dim, 10);
  for (int order = 0; order < 3; ++order) {
    cuda_shim_turn(9, order);
    std::vector<T> slots(size_t(size * dim)), newest(size_t(k * dim));
    int64_t head = size - 1;
    const cuda::Ring<T> ring{slots.data(), size, dim, dim, 1, &head};
    bool good = cuda::ring_push(ring, rows_of(fresh, dim), nullptr) == cudaSuccess;
    good &= cuda::ring_newest(ring, k, newest.data(), nullptr) == cudaSuccess;
    if (good && newest == fresh && head == (size - 1 + k) % size) continue;
    failures += 1;
    std::printf("ring: n %ld, k %ld, D %ld, order %d\n", long(size), long(k), long(dim), order);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const bool quick = count > 1 && std::strcmp(arguments[1], "quick") == 0;
  if (count > 2) cuda_shim_skip(arguments[2]);
  const bool warps = count > 1 && std::strcmp(arguments[1], "tensor") == 0;
  if (warps || (count > 1 && std::strcmp(arguments[1], "wgmma") == 0)) {  // with the variables that it takes
    check("imq", Problem<float>{70, 5, 3, 70, true}, [](Problem<float>& p) { return run_mmd(imq, p); });
    if (!warps) check("imq", Problem<float>{70, 5, 3, 270, true}, [](Problem<float>& p) { return run_mmd(imq, p); });
    cuda_shim_print_sites();
    std::printf("%d failures\n", failures);
    return failures > 0;
  }
  sweep<float>(40, 3, 33, 5, true);
  sweep<double>(33, 33, 0, 3, true);
  sweep<float>(1, 1, 1, 1, false);
  sweep_centers<float>(300, 3, 3);
  sweep_centers<double>(1, 1, 1);
  sweep_running<float>(70, 5, 35, false);
  sweep_running<double>(20, 1, 3, true);
  sweep_sorted<float>(70, 1, 5, 3);
  sweep_sorted<double>(40, 7, 3, 2);
  sweep_ring<float>(7, 3, 5);
  sweep_ring<double>(4100, 4097, 1);
  if (!quick) {
    sweep<float>(130, 66, 140, 4, true);  // several launches
    sweep<double>(65, 64, 40, 35, true);
    sweep_sliced<float>({260, 3, 110, 35, true});  // more rows than one launch takes
    sweep_sliced<double>({260, 65, 0, 35, true});
    sweep_centers<float>(300, 1100, 2);
    sweep_centers<float>(300, 2, 5, {7, 299});
    sweep_running<float>(270, 3, 5, true);
    sweep_sorted<double>(2100, 300, 2, 2);
  }
  cuda_shim_print_sites();
  std::printf("%d failures\n", failures);
  return failures > 0;
}
