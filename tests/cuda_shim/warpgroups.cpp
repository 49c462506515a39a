// The instructions of csrc/cuda/warpgroups.cuh on the CPU, by the PTX ISA's description of them. What runs beside a thread, a
// copy or a product, comes at once or as late as can be, by the order of the turns.
#include "cuda/warpgroups.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cuda/team.cuh"
#include "cuda/tensor_cores.cuh"
#include "tensor_cores.h"

namespace mow::cuda {
namespace {

constexpr unsigned kSharedAddress = 0x430;  // of a block's shared memory, which begins at no multiple of 1024
constexpr int kMostThreads = 8 * 1024;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "cuda_shim: %s\n", what);
  std::abort();
}

// An mbarrier: the phase changes when as many as are expected have arrived, and all bytes.
struct State {
  int32_t bytes;
  uint16_t missing;
  uint8_t expected, phase;
};
static_assert(sizeof(State) == sizeof(Arrivals));

State read(const Arrivals* arrivals) {
  const uint64_t word = __atomic_load_n(arrivals, __ATOMIC_RELAXED);
  State state;
  std::memcpy(&state, &word, sizeof state);
  return state;
}

void write(Arrivals* arrivals, State state) {
  if (state.missing == 0 && state.bytes == 0) state.missing = state.expected, state.phase ^= 1;
  uint64_t word;
  std::memcpy(&word, &state, sizeof word);
  __atomic_store_n(arrivals, word, __ATOMIC_RELAXED);
}

char* place(Arrivals* arrivals) { return reinterpret_cast<char*>(arrivals); }

void end_copy(const cuda_shim::Copy& copy) {
  cuda_shim::receives(place(copy.word));
  std::memcpy(copy.to, copy.from, copy.bytes);
  cuda_shim::passes(place(copy.word));
  State state = read(copy.word);
  state.bytes -= int32_t(copy.bytes);
  write(copy.word, state);
}

struct Product {
  float* c;
  uint64_t a, b;
  bool adds;
};
std::vector<Product> products[kMostThreads];

// A matrix [64, 16] of float16 numbers by its descriptor, K-major.
struct Matrix {
  unsigned start, stride;

  explicit Matrix(uint64_t descriptor) : start(unsigned(descriptor & 0x3fff) << 4), stride(unsigned(descriptor >> 32 & 0x3fff) << 4) {
    if (descriptor >> 62 != 1) fail("this stand-in knows the swizzle of 128 bytes alone");
    if ((descriptor >> 49 & 7) != 0) fail("a base offset");
  }

  // Rows are 128 bytes, eight of them `stride` bytes from the next eight; bits 4 to 6 of the address are swizzled by its
  // bits 7 to 9.
  float at(int row, int column) const {
    unsigned address = start + row / 8 * stride + row % 8 * 128 + column * 2;
    address ^= (address >> 7 & 7) << 4;
    Half bits;
    std::memcpy(&bits, cuda_shim::shared_memory() + (address - kSharedAddress), sizeof bits);
    return float_of(bits);
  }
};

void multiply(const Product& product) {
  const int warp = int(threadIdx.x / 32 % 4), lane = int(threadIdx.x % 32);
  const Matrix a(product.a), b(product.b);
  for (int i = 0; i < 32; ++i) {
    const int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    float sum = product.adds ? product.c[i] : 0.0f;
    for (int first = 0; first < 16; first += kTerms) {
      double terms[kTerms];
      for (int j = 0; j < kTerms; ++j) terms[j] = double(a.at(row, first + j)) * double(b.at(column, first + j));
      sum = add(sum, terms);
    }
    product.c[i] = sum;
  }
}

// What slabs [64, 64] hold where begin_multiply finds it.
void one(const Half* a, const Half* b, int byte, float* c) {
  unsigned char* slabs[2] = {dynamic_shared() + (kSlabAlignment - kSharedAddress % kSlabAlignment)};
  slabs[1] = slabs[0] + kSlabBytes;
  for (int i = int(threadIdx.x); i < 64 * 64; i += 128) {
    std::memcpy(slabs[0] + slab_offset(i / 64, i % 64 * 2), &a[i], 2);
    std::memcpy(slabs[1] + slab_offset(i / 64, i % 64 * 2), &b[i], 2);
  }
  __syncthreads();
  float sums[32], none[32];
  const auto each = [&](const auto& use) {
    for (int i = 0; i < 32; ++i) {
      const int row = int(threadIdx.x) / 32 * 16 + int(threadIdx.x) % 32 / 4 + i / 2 % 2 * 8;
      use(sums[i], c[row * 64 + i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2]);
    }
  };
  each([](float& sum, const float& number) { sum = number; });
  begin_products();
  begin_multiply<true>(sums, descriptor(slabs[0], byte), descriptor(slabs[1], byte));
  finish_products(sums, none);
  each([](const float& sum, float& number) { number = sum; });
}

}  // namespace

unsigned shared_address(const void* shared) {
  return unsigned(static_cast<const unsigned char*>(shared) - cuda_shim::shared_memory()) + kSharedAddress;
}

void begin_arrivals(Arrivals* arrivals) {
  __atomic_store_n(arrivals, 0, __ATOMIC_RELAXED);
  State state{0, 1, 1, 0};
  write(arrivals, state);
}

void finish_beginning() {}

void expect(Arrivals* arrivals, unsigned bytes) {
  cuda_shim::passes(place(arrivals));
  State state = read(arrivals);
  if (state.missing == 0) fail("more arrive than are expected");
  state.bytes += int32_t(bytes), state.missing -= 1;
  write(arrivals, state);
}

void begin_bulk_copy(void* to, const void* from, unsigned bytes, Arrivals* arrivals) {
  for (const void* const end : {static_cast<const void*>(to), from}) {
    if (reinterpret_cast<uintptr_t>(end) % 16 != 0 || bytes % 16 != 0) fail("a bulk copy that is not aligned to 16 bytes");
  }
  cuda_shim::passes(place(arrivals));
  const cuda_shim::Copy copy{end_copy, to, from, bytes, arrivals};
  cuda_shim::turns() == 0 ? end_copy(copy) : cuda_shim::end_later(copy);
}

void wait(Arrivals* arrivals, unsigned parity) {
  cuda_shim::wait_until([](const uint64_t* word, unsigned parity) { return read(word).phase != parity; }, arrivals, parity);
  cuda_shim::receives(place(arrivals));
}

bool is_last(unsigned* counter, unsigned count) {
  const unsigned before = __atomic_fetch_add(counter, 1, __ATOMIC_ACQ_REL);
  if (before == count - 1) __atomic_store_n(counter, 0, __ATOMIC_RELEASE);
  return before == count - 1;
}

void begin_products() {}

void begin_multiply(float (&c)[32], uint64_t a, uint64_t b, bool adds) {
  const Product product{c, a, b, adds};
  if (cuda_shim::turns() == 1) {
    multiply(product);
  } else {
    products[cuda_shim::thread_in_team()].push_back(product);
  }
}

void finish_products(float (&)[32], float (&)[32]) {
  std::vector<Product>& own = products[cuda_shim::thread_in_team()];
  cuda_shim::wait_until(nullptr, nullptr, 0);
  for (const Product& product : own) multiply(product);
  own.clear();
}

}  // namespace mow::cuda

// c [64, 64] += a b^T, of 16 columns of a and b [64, 64] from a byte on; of a and b the bits.
extern "C" int cuda_shim_warpgroup_multiply(const mow::cuda::Half* a, const mow::cuda::Half* b, int byte, float* c) {
  using namespace mow::cuda;
  return launch(one, dim3(1), 128, kSlabAlignment + 2 * kSlabBytes, 1, nullptr, a, b, byte, c);
}
