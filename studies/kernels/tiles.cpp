// What a tile of 16 x 16 products takes: in float32, as the C++ backend has it, and as six products of bfloat16 limbs, by
// AVX512-BF16 and by AMX. A line of JSON for each width on standard output; compiled and run by tiles.py.
#define MOW_ISA avx512
#include "cpu/pairwise_kernels.cpp"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

namespace {

using namespace mow::cpu;
using namespace mow::cpu::avx512;

constexpr int kTile = 16, kRowTiles = 4, kColumnTiles = 24;  // a band of rows, a strip of columns
constexpr int kTogether = 4;                                 // tiles of columns that share what is loaded of the rows
constexpr int kBlock = 32, kLimb = kTile * kBlock, kBlockLimbs = 3 * kLimb;
constexpr int kRounds = 301;
constexpr double kAtLeast = 2e-3;  // seconds of a round

template <class T>
struct Memory {
  T* data;
  explicit Memory(size_t size) : data(static_cast<T*>(std::aligned_alloc(64, (size * sizeof(T) + 63) / 64 * 64))) {}
  ~Memory() { std::free(data); }
};

// x as three bfloat16 numbers, whose sum it is.
void split(float x, uint16_t* limbs, int stride) {
  for (int limb = 0; limb < 3; ++limb) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    float rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    limbs[limb * stride] = uint16_t(bits >> 16);
    x -= rounded;
  }
}

// Tiles of [blocks, limbs, 16 rows, 32 coordinates], and for columns of [blocks, limbs, 16 pairs, 16 columns, 2].
void split_rows(const std::vector<float>& x, int64_t dim, bool columns, uint16_t* to) {
  const int64_t tile = dim / kBlock * kBlockLimbs;
  for (int64_t row = 0; row < int64_t(x.size()) / dim; ++row) {
    for (int64_t d = 0; d < dim; ++d) {
      const int64_t row_major = row % kTile * kBlock + d % kBlock;
      const int64_t by_pairs = d % kBlock / 2 * 2 * kTile + row % kTile * 2 + d % 2;
      uint16_t* block = to + row / kTile * tile + d / kBlock * kBlockLimbs;
      split(x[row * dim + d], block + (columns ? by_pairs : row_major), kLimb);
    }
  }
}

// The six products of limbs whose share is not below float32's last digit: of rows, of columns.
constexpr int kProducts[6][2] = {{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {0, 2}};

void by_avx512_bf16(const uint16_t* rows, const uint16_t* columns, int64_t blocks, float* products) {
  __m512 sums[kTile] = {};
  // Unrolled, so that the sums stay in registers.
  for (int64_t at = 0; at < blocks * kBlockLimbs; at += kBlockLimbs) {
    for (int pair = 0; pair < kBlock / 2; ++pair) {
      __m512bh y[3];
#pragma GCC unroll 3
      for (int limb = 0; limb < 3; ++limb) {
        std::memcpy(&y[limb], columns + at + limb * kLimb + pair * 2 * kTile, sizeof y[limb]);
      }
#pragma GCC unroll 6
      for (int product = 0; product < 6; ++product) {
        const auto [i, j] = kProducts[product];
#pragma GCC unroll 16
        for (int row = 0; row < kTile; ++row) {
          int32_t word;
          std::memcpy(&word, rows + at + i * kLimb + row * kBlock + pair * 2, sizeof word);
          sums[row] = _mm512_dpbf16_ps(sums[row], y[j], (__m512bh)_mm512_set1_epi32(word));
        }
      }
    }
  }
  std::memcpy(products, sums, sizeof sums);
}

// kTogether tiles of columns.
void by_amx(const uint16_t* rows, const uint16_t* columns, int64_t blocks, float* products) {
  const int64_t tile = blocks * kBlockLimbs;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t at = 0; at < tile; at += kBlockLimbs) {
    _tile_loadd(4, rows + at, 64);
    _tile_loadd(5, rows + at + kLimb, 64);
    _tile_loadd(6, rows + at + 2 * kLimb, 64);
    // Tiles are numbered in the instruction.
#define MOW_COLUMNS(sum)                                     \
  _tile_loadd(7, columns + sum * tile + at, 64);             \
  _tile_dpbf16ps(sum, 4, 7);                                 \
  _tile_dpbf16ps(sum, 5, 7);                                 \
  _tile_dpbf16ps(sum, 6, 7);                                 \
  _tile_loadd(7, columns + sum * tile + at + kLimb, 64);     \
  _tile_dpbf16ps(sum, 4, 7);                                 \
  _tile_dpbf16ps(sum, 5, 7);                                 \
  _tile_loadd(7, columns + sum * tile + at + 2 * kLimb, 64); \
  _tile_dpbf16ps(sum, 4, 7)
    MOW_COLUMNS(0);
    MOW_COLUMNS(1);
    MOW_COLUMNS(2);
    MOW_COLUMNS(3);
#undef MOW_COLUMNS
  }
  _tile_stored(0, products, 64);
  _tile_stored(1, products + kTile * kTile, 64);
  _tile_stored(2, products + 2 * kTile * kTile, 64);
  _tile_stored(3, products + 3 * kTile * kTile, 64);
}

// Of a tile, over as many calls as a round takes.
double nanoseconds(const std::function<void()>& visit) {
  using Clock = std::chrono::steady_clock;
  const auto begun = Clock::now();
  int calls = 0;
  std::chrono::duration<double> taken{};
  for (; taken.count() < kAtLeast; ++calls) visit(), taken = Clock::now() - begun;
  return 1e9 * taken.count() / calls / (kRowTiles * kColumnTiles);
}

void measure(int64_t dim) {
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> x(kRowTiles * kTile * dim), y(kColumnTiles * kTile * dim);
  for (float& number : x) number = normal(generator);
  for (float& number : y) number = normal(generator);

  Memory<float> rows(x.size()), columns(y.size()), norms(kColumnTiles * kTile);
  pack<float>(x.data(), kRowTiles * kTile, dim, 1, dim, rows.data, norms.data);
  pack<float>(y.data(), kColumnTiles * kTile, dim, 1, dim, columns.data, norms.data);
  const int64_t blocks = dim / kBlock, tile = blocks * kBlockLimbs;
  Memory<uint16_t> row_limbs(kRowTiles * tile), column_limbs(kColumnTiles * tile);
  split_rows(x, dim, false, row_limbs.data), split_rows(y, dim, true, column_limbs.data);

  constexpr int kPairs = kTile * kTile;
  Memory<float> found(3 * kRowTiles * kColumnTiles * kPairs);
  const auto place = [&](int side, int row, int column) {
    return found.data + ((side * kRowTiles + row) * kColumnTiles + column) * kPairs;
  };
  const std::function<void()> sides[] = {
      [&] {
        for (int row = 0; row < kRowTiles; ++row) {
          const PanelRows<float, kTile> panel(Panel<float>{rows.data, norms.data, kRowTiles * kTile}, row * kTile, dim);
          for (int column = 0; column < kColumnTiles; column += kTilesAtOnce) {
            multiply<float, kTile, kTilesAtOnce>(
                panel, columns.data + column * kTile * dim, kTilesAtOnce, dim,
                reinterpret_cast<Batch<float, kTile>*>(place(0, row, column)));
          }
        }
      },
      [&] {
        for (int row = 0; row < kRowTiles; ++row) {
          for (int column = 0; column < kColumnTiles; ++column) {
            by_avx512_bf16(row_limbs.data + row * tile, column_limbs.data + column * tile, blocks, place(1, row, column));
          }
        }
      },
      [&] {
        for (int row = 0; row < kRowTiles; ++row) {
          for (int column = 0; column < kColumnTiles; column += kTogether) {
            by_amx(row_limbs.data + row * tile, column_limbs.data + column * tile, blocks, place(2, row, column));
          }
        }
      }};
  const char* const names[] = {"float32", "avx512_bf16", "amx"};

  std::vector<double> times[3];
  for (int round = 0; round < kRounds; ++round) {
    for (int side = 0; side < 3; ++side) times[side].push_back(nanoseconds(sides[side]));
  }
  std::printf("{\"dim\": %ld", long(dim));
  for (int side = 0; side < 3; ++side) {
    double error = 0;
    for (int row = 0; row < kRowTiles * kTile; ++row) {
      for (int column = 0; column < kColumnTiles * kTile; ++column) {
        double exact = 0;
        for (int64_t d = 0; d < dim; ++d) exact += double(x[row * dim + d]) * double(y[column * dim + d]);
        const double is = place(side, row / kTile, column / kTile)[row % kTile * kTile + column % kTile];
        error += (is - exact) * (is - exact) / double(dim);
      }
    }
    error = std::sqrt(error * double(dim * dim) / (double(x.size()) * double(y.size())));
    std::printf(", \"%s\": {\"error\": %.3g, \"nanoseconds\": [", names[side], error);
    for (int round = 0; round < kRounds; ++round) std::printf("%s%.4g", round ? ", " : "", times[side][round]);
    std::printf("]}");
  }
  std::printf("}\n");
}

struct alignas(64) Configuration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {kTile, kTile, kTile, kTile, kTile, kTile, kTile, kTile};
};

}  // namespace

int main() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) {
    std::fprintf(stderr, "this system lets no process use AMX\n");
    return 1;
  }
  const Configuration configuration;
  __asm__ volatile("" ::"m"(configuration));  // GCC believes that the next instruction reads eight bytes
  _tile_loadconfig(&configuration);
  for (const int64_t dim : {32, 64, 256}) measure(dim);
  _tile_release();
}
