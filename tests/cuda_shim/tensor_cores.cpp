// The instructions of csrc/cuda/tensor_cores.cuh on the CPU, in its numbers those of studies/cuda/tensor_cores.py.
#include "tensor_cores.h"

#include "cuda/team.cuh"
#include "cuda/tensor_cores.cuh"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace mow::cuda {
namespace {

constexpr int kLanes = 32, kMostWarps = 8 * 32, kMostThreads = 8 * 1024;
struct Posted {
  float a[4][2], b[2][2];
  const void* row;
};
// Two in turn: who is at the next instruction leaves alone what others may still read of this one.
Posted posted[kMostWarps][2][kLanes];
unsigned turn[kMostThreads];

struct Copy {
  void* to;
  const void* from;
};
std::vector<Copy> copies[kMostThreads];

int lane() { return int(threadIdx.x % kLanes); }

// What every lane of the warp has posted.
const Posted* together(const Posted& mine) {
  Posted* const all = posted[cuda_shim::warp_in_team()][turn[cuda_shim::thread_in_team()]++ % 2];
  all[lane()] = mine;
  cuda_shim::barrier(cuda_shim::Scope::kWarp);
  return all;
}

template <class To, class From>
To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

double power_of_two(int exponent) { return same_bits<double>(uint64_t(exponent + 1023) << 52); }

void one(const Half* a, const Half* b, float* c) {
  const int row = lane() / 4, column = lane() % 4 * 2;
  const auto pair = [](const Half* from) { return unsigned(from[0]) | unsigned(from[1]) << 16; };
  const unsigned x[4] = {
      pair(a + row * 16 + column), pair(a + (row + 8) * 16 + column), pair(a + row * 16 + column + 8),
      pair(a + (row + 8) * 16 + column + 8)};
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = c[(row + i / 2 * 8) * 8 + column + i % 2];
  multiply_add(sums, x, pair(b + row * 16 + column), pair(b + row * 16 + column + 8));
  for (int i = 0; i < 4; ++i) c[(row + i / 2 * 8) * 8 + column + i % 2] = sums[i];
}

}  // namespace

float add(float c, const double (&products)[kTerms]) {
  double largest = std::fabs(c);
  for (const double x : products) largest = std::max(largest, std::fabs(x));
  double plain = c;
  for (const double x : products) plain += x;
  if (!std::isfinite(plain)) return float(plain);
  const int last = std::max(int(same_bits<uint64_t>(largest) >> 52) - 1022, -125) - 24;
  const double inverse = power_of_two(-last);
  int64_t sum = int64_t(c * inverse);
  for (const double x : products) sum += int64_t(x * inverse);
  const double exact = double(sum) * power_of_two(last);
  return float(same_bits<double>(same_bits<uint64_t>(exact) & ~((uint64_t(1) << 29) - 1)));  // 24 bits of it
}

Half half_of(float x) { return same_bits<Half>(_Float16(x)); }

float float_of(Half bits) { return float(same_bits<_Float16>(bits)); }

void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  Posted mine{};
  const auto unpack = [](float (&to)[2], unsigned word) { to[0] = float_of(Half(word)), to[1] = float_of(Half(word >> 16)); };
  for (int i = 0; i < 4; ++i) unpack(mine.a[i], a[i]);
  unpack(mine.b[0], b0), unpack(mine.b[1], b1);
  const Posted* const all = together(mine);
  for (int i = 0; i < 4; ++i) {
    const Posted *const row = all + lane() / 4 * 4, *const column = all + (lane() % 4 * 2 + i % 2) * 4;
    for (int first = 0; first < 16; first += kTerms) {
      double products[kTerms];
      for (int j = 0; j < kTerms; ++j) {
        const int k = first + j, pair = k % 8 / 2;
        products[j] = double(row[pair].a[i / 2 + k / 8 * 2][k % 2]) * double(column[pair].b[k / 8][k % 2]);
      }
      c[i] = add(c[i], products);
    }
  }
}

void load_matrices(unsigned (&to)[4], const void* row) {
  const Posted* const all = together({{}, {}, row});
  for (int matrix = 0; matrix < 4; ++matrix) {
    const void* const from = all[matrix * 8 + lane() / 4].row;
    std::memcpy(&to[matrix], static_cast<const unsigned char*>(from) + lane() % 4 * 4, sizeof(unsigned));
  }
}

// At once or as late as can be, by the order of the turns.
void begin_copy(void* to, const void* from) {
  copies[cuda_shim::thread_in_team()].push_back({to, from});
  if (cuda_shim::turns() == 0) finish_copies();
}

void finish_copies() {
  std::vector<Copy>& own = copies[cuda_shim::thread_in_team()];
  for (const Copy& copy : own) std::memcpy(copy.to, copy.from, 16);
  own.clear();
}

}  // namespace mow::cuda

// c [16, 8] += a [16, 16] b^T, b [8, 16]; of a and b the bits.
extern "C" int cuda_shim_multiply_add(const mow::cuda::Half* a, const mow::cuda::Half* b, float* c) {
  return mow::cuda::launch(mow::cuda::one, dim3(1), 32, 0, 1, nullptr, a, b, c);
}
