// The host functions of csrc/cuda for ctypes.
#include <cstring>
#include <vector>

#include "cuda/cramer_wold.h"
#include "cuda/k_center.h"
#include "cuda/mmd.h"
#include "cuda/ring.h"
#include "cuda/sliced_wasserstein.h"
#include "cuda/team.cuh"

namespace {

using namespace mow;

// [data, rows, row stride, column stride] of current, history and prior, then D, then how many of the history are its newest
// rows and the address of its head, where it is a ring.
template <class T>
cuda::Samples<T> samples_of(const int64_t* numbers) {
  const auto rows = [&](int i) {
    const int64_t* const n = numbers + 4 * i;
    return Rows<T>{reinterpret_cast<const T*>(n[0]), n[1], n[2], n[3]};
  };
  if (numbers[14] == 0) return {rows(0), rows(1), rows(2), numbers[12]};
  return {rows(0), {rows(1), reinterpret_cast<const int64_t*>(numbers[14]), numbers[13]}, rows(2), numbers[12]};
}

// Memory that nobody has written yet, all NaN.
std::vector<unsigned char> scratch(int64_t bytes) { return std::vector<unsigned char>(size_t(bytes), 0xff); }

template <class T>
int run_mmd(const int64_t* numbers, const double* table, int64_t size, void* value, void* g_current) {
  const auto samples = samples_of<T>(numbers);
  auto memory = scratch(cuda::pairwise_scratch(samples, g_current != nullptr));
  const cuda::Results<T> results{static_cast<T*>(value), static_cast<T*>(g_current)};
  return cuda::mmd(MmdTable(table, size), samples, results, memory.data(), nullptr);
}

template <class T>
int run_cramer_wold(
    const int64_t* numbers, const double* phi, int64_t size, double gamma, void* value, void* g_current) {
  const auto samples = samples_of<T>(numbers);
  auto memory = scratch(cuda::pairwise_scratch(samples, g_current != nullptr));
  const cuda::Results<T> results{static_cast<T*>(value), static_cast<T*>(g_current)};
  return cuda::cramer_wold(CramerWoldTable{phi, size}, gamma, samples, results, memory.data(), nullptr);
}

// directions: [data, L, row stride, column stride] of [L, D], and whether they are draws.
template <class T>
int run_sliced(
    const int64_t* numbers, const int64_t* directions, const double* bins, double p, void* value, void* g_current) {
  const Rows<T> rows{reinterpret_cast<const T*>(directions[0]), directions[1], directions[2], directions[3]};
  const cuda::Results<T> results{static_cast<T*>(value), static_cast<T*>(g_current)};
  const cuda::Sliced<T> problem{samples_of<T>(numbers), rows, bins, p, results, directions[4] != 0};
  auto memory = scratch(cuda::sliced_scratch(problem));
  return cuda::sliced_wasserstein(problem, memory.data(), nullptr);
}

// current and drawn as in `samples_of`; then size, rows, D.
template <class T>
cuda::RunningCall<T> running_of(void* sums, void* prior_sums, const int64_t* numbers) {
  const auto rows = [&](int i) {
    const int64_t* const n = numbers + 4 * i;
    return Rows<T>{reinterpret_cast<const T*>(n[0]), n[1], n[2], n[3]};
  };
  using Kept = cuda::KeptRows<T>;
  const int64_t size = numbers[8];
  return {Kept::of(sums, size), prior_sums ? Kept::of(prior_sums, size) : Kept{}, rows(0), rows(1), size, numbers[9], numbers[10]};
}

template <class T>
int run_push(void* sums, void* prior_sums, const int64_t* numbers, int64_t head) {
  return cuda::push_running(running_of<T>(sums, prior_sums, numbers), head, nullptr);
}

// gamma: negative for MMD.
template <class T>
int run_running(
    void* sums, void* prior_sums, const int64_t* numbers, const double* table, int64_t size, double gamma, void* value,
    void* g_current) {
  const auto call = running_of<T>(sums, prior_sums, numbers);
  auto memory = scratch(cuda::running_scratch(call.size, call.current.count, call.dim, prior_sums != nullptr));
  const cuda::Results<T> results{static_cast<T*>(value), static_cast<T*>(g_current)};
  if (gamma < 0) return cuda::mmd_running(MmdTable(table, size), call, results, memory.data(), nullptr);
  return cuda::cramer_wold_running(CramerWoldTable{table, size}, gamma, call, results, memory.data(), nullptr);
}

// fresh: [data, rows, row stride, column stride], then directions as for run_sliced, then size, head, rows, D.
template <class T>
int run_sorted(void* keys, const int64_t* numbers, const double* bins, void* value, void* g_current, bool evaluated) {
  const auto rows = [&](int i) {
    const int64_t* const n = numbers + 4 * i;
    return Rows<T>{reinterpret_cast<const T*>(n[0]), n[1], n[2], n[3]};
  };
  const auto window = cuda::SortedWindow<T>::of(keys, numbers[8], numbers[9], numbers[10], numbers[11], rows(0), rows(1));
  auto memory = scratch(cuda::sorted_scratch(window, value != nullptr));
  if (value == nullptr) return cuda::push_sorted(window, evaluated, memory.data(), nullptr);
  return cuda::evaluate_sorted(window, bins, {static_cast<T*>(value), static_cast<T*>(g_current)}, memory.data(), nullptr);
}

template <class T>
int run_k_center(
    const int64_t* x, int64_t dim, int64_t k, int64_t start, const int64_t* given, int64_t given_count, int64_t* indices,
    void* squared_radius, int64_t* counts) {
  const Rows<T> rows{reinterpret_cast<const T*>(x[0]), x[1], x[2], x[3]};
  auto memory = scratch(cuda::k_center_scratch<T>(rows.count, dim));
  const cuda::Centers<T> centers{indices, static_cast<T*>(squared_radius), counts};
  return cuda::k_center(rows, dim, k, start, given, given_count, centers, memory.data(), nullptr);
}

void nothing() {}

template <class T>
int run_ring(const int64_t* numbers, int64_t* head, const int64_t* rows, int64_t count, void* newest) {
  const cuda::Ring<T> ring{reinterpret_cast<T*>(numbers[0]), numbers[1], numbers[2], numbers[3], numbers[4], head};
  if (rows == nullptr) return cuda::ring_newest(ring, count, static_cast<T*>(newest), nullptr);
  const Rows<T> fresh{reinterpret_cast<const T*>(rows[0]), count, rows[1], rows[2]};
  return cuda::ring_push(ring, fresh, nullptr);
}

}  // namespace

extern "C" {

// numbers: [data, slots, D, row stride, column stride]; rows: [data, row stride, column stride], null to read the newest.
int cuda_shim_ring(bool single, const int64_t* numbers, int64_t* head, const int64_t* rows, int64_t count, void* newest) {
  return (single ? run_ring<float> : run_ring<double>)(numbers, head, rows, count, newest);
}

int cuda_shim_launch(unsigned blocks, unsigned rows_of_blocks, int threads, int64_t shared, int team) {
  return cuda::launch(nothing, dim3(blocks, rows_of_blocks), threads, shared, team, nullptr);
}

int cuda_shim_launch_together(unsigned blocks) { return cuda::launch_together(nothing, dim3(blocks), 256, 0, nullptr); }

int cuda_shim_mmd(bool single, const int64_t* numbers, const double* table, int64_t size, void* value, void* g_current) {
  return (single ? run_mmd<float> : run_mmd<double>)(numbers, table, size, value, g_current);
}

int cuda_shim_cramer_wold(
    bool single, const int64_t* numbers, const double* phi, int64_t size, double gamma, void* value, void* g_current) {
  return (single ? run_cramer_wold<float> : run_cramer_wold<double>)(numbers, phi, size, gamma, value, g_current);
}

int cuda_shim_sliced_wasserstein(
    bool single, const int64_t* numbers, const int64_t* directions, const double* bins, double p, void* value,
    void* g_current) {
  return (single ? run_sliced<float> : run_sliced<double>)(numbers, directions, bins, p, value, g_current);
}

// value: null to push.
int cuda_shim_sorted(
    bool single, void* keys, const int64_t* numbers, const double* bins, void* value, void* g_current, bool evaluated) {
  return (single ? run_sorted<float> : run_sorted<double>)(keys, numbers, bins, value, g_current, evaluated);
}

int cuda_shim_running_push(bool single, void* sums, void* prior_sums, const int64_t* numbers, int64_t head) {
  return (single ? run_push<float> : run_push<double>)(sums, prior_sums, numbers, head);
}

int cuda_shim_running(
    bool single, void* sums, void* prior_sums, const int64_t* numbers, const double* table, int64_t size, double gamma,
    void* value, void* g_current) {
  return (single ? run_running<float> : run_running<double>)(
      sums, prior_sums, numbers, table, size, gamma, value, g_current);
}

// x: [data, rows, row stride, column stride].
int cuda_shim_k_center(
    bool single, const int64_t* x, int64_t dim, int64_t k, int64_t start, const int64_t* given, int64_t given_count,
    int64_t* indices, void* squared_radius, int64_t* counts) {
  return (single ? run_k_center<float> : run_k_center<double>)(
      x, dim, k, start, given, given_count, indices, squared_radius, counts);
}

}
