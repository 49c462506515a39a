// Vectors of the widest kind that this unit's instruction set has, through GCC's and Clang's vector types.
//
// Included by units that are compiled once per instruction set, hence everything has internal linkage (csrc/cpu/isa.h).
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>
#include <utility>

#include "cpu/pieces.h"

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T, int bytes = kVectorBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};

template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
struct MaskOf;
template <>
struct MaskOf<float> {
  using Lane = int32_t;
  static constexpr int kMantissaBits = 23, kExponentBias = 127;
};
template <>
struct MaskOf<double> {
  using Lane = int64_t;
  static constexpr int kMantissaBits = 52, kExponentBias = 1023;
};

template <class T>
using Int = Vec<typename MaskOf<T>::Lane>;

template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

// Memory for vectors, uninitialised. Not the Buffer of csrc/cpu/buffer.h: what is compiled for each instruction set may not
// share inline functions with the rest.
template <class T>
class VectorMemory {
 public:
  explicit VectorMemory(int64_t size) : piece_(mow::cpu::take_piece(size * sizeof(T))) {}
  ~VectorMemory() { mow::cpu::give_back(piece_); }
  VectorMemory(const VectorMemory&) = delete;
  VectorMemory& operator=(const VectorMemory&) = delete;

  operator T*() { return static_cast<T*>(piece_.memory); }

 private:
  mow::cpu::Piece piece_;
};

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
inline Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// 0, 1, 2, ...
template <class T>
inline Int<T> lane_numbers() {
  Int<T> v;
  for (int i = 0; i < kLanes<T>; ++i) v[i] = i;
  return v;
}

// The sum of the lanes, by halves: a fixed order.
template <class T, int bytes = kVectorBytes>
inline T sum_lanes(typename VectorOf<T, bytes>::type v) {
  if constexpr (bytes == sizeof(T)) {
    return v[0];
  } else if constexpr (bytes == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else {
    typename VectorOf<T, bytes / 2>::type low, high;
    std::memcpy(&low, &v, bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + bytes / 2, bytes / 2);
    return sum_lanes<T, bytes / 2>(low + high);
  }
}

// The pairs (a, b) of blocks of `half` lanes: a's even blocks beside b's even blocks, or the odd ones.
template <class T, int half, bool odd, size_t... lane>
inline Vec<T> gather_blocks(Vec<T> a, Vec<T> b, std::index_sequence<lane...>) {
  constexpr int L = kLanes<T>;
  return __builtin_shufflevector(a, b, (lane & half ? L + lane - (odd ? 0 : half) : lane + (odd ? half : 0))...);
}

template <class T, int half, bool odd>
inline Vec<T> gather_blocks(Vec<T> a, Vec<T> b) {
  return gather_blocks<T, half, odd>(a, b, std::make_index_sequence<kLanes<T>>{});
}

// A square of vectors, transposed by exchanging off-diagonal blocks of one lane, of two, ...
template <class T, int half = 1>
inline void transpose(Vec<T> (&square)[kLanes<T>]) {
  for (int i = 0; i < kLanes<T>; ++i) {
    if (i & half) continue;
    const Vec<T> a = square[i], b = square[i + half];
    square[i] = gather_blocks<T, half, false>(a, b);
    square[i + half] = gather_blocks<T, half, true>(a, b);
  }
  if constexpr (2 * half < kLanes<T>) transpose<T, 2 * half>(square);
}

// Lane i of the result is the sum of the lanes of rows[i]. Overwrites the rows.
template <class T, int half = 1>
inline Vec<T> sum_each(Vec<T>* rows) {
  for (int i = 0; i < kLanes<T>; i += 2 * half) {
    rows[i] = gather_blocks<T, half, false>(rows[i], rows[i + half]) + gather_blocks<T, half, true>(rows[i], rows[i + half]);
  }
  if constexpr (2 * half < kLanes<T>) return sum_each<T, 2 * half>(rows);
  return rows[0];
}

// Lane i of the result is lane i ^ kExchange.
template <class T, int kExchange, size_t... lane>
inline Int<T> exchange_lanes(Int<T> v, std::index_sequence<lane...>) {
  return __builtin_shufflevector(v, v, (lane ^ kExchange)...);
}

template <class T, int kExchange>
inline Int<T> exchange_lanes(Int<T> v) {
  return exchange_lanes<T, kExchange>(v, std::make_index_sequence<kLanes<T>>{});
}

// The lanes without a bit from a, those with it from b.
template <class T, int kBit, size_t... lane>
inline Int<T> blend_lanes(Int<T> a, Int<T> b, std::index_sequence<lane...>) {
  return __builtin_shufflevector(a, b, (lane & kBit ? kLanes<T> + lane : lane)...);
}

template <class T, int kBit>
inline Int<T> blend_lanes(Int<T> a, Int<T> b) {
  return blend_lanes<T, kBit>(a, b, std::make_index_sequence<kLanes<T>>{});
}

// The lanes in double precision.
template <class T>
struct Doubles {
  static constexpr int kParts = sizeof(double) / sizeof(T);
  Vec<double> parts[kParts];
};

template <class T>
inline Doubles<T> widen(Vec<T> x) {
  constexpr int kParts = Doubles<T>::kParts;
  typename VectorOf<T, kVectorBytes / kParts>::type narrow[kParts];
  std::memcpy(narrow, &x, sizeof x);
  Doubles<T> wide;
  for (int i = 0; i < kParts; ++i) wide.parts[i] = __builtin_convertvector(narrow[i], Vec<double>);
  return wide;
}

// Whether any bit is set, by halves.
template <int bytes = kVectorBytes>
inline bool any_bit(typename VectorOf<int64_t, bytes>::type v) {
  if constexpr (bytes == 16) {
    return (v[0] | v[1]) != 0;
  } else {
    typename VectorOf<int64_t, bytes / 2>::type low, high;
    std::memcpy(&low, &v, bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + bytes / 2, bytes / 2);
    return any_bit<bytes / 2>(low | high);
  }
}

template <class T>
inline bool any(Int<T> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
  return any_bit((Vec<int64_t>)mask);
#endif
}

// 1/x for x that is neither zero nor so large or small that 1/x leaves the range of normal numbers.
template <class T>
inline Vec<T> reciprocal(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> estimate = _mm512_maskz_rcp14_ps(0xffff, x);
    return estimate + estimate * (1 - x * estimate);
  }
#endif
  return 1 / x;
}

// 1/sqrt(x) for x that is neither denormal nor infinite. AVX-512 has estimates to 14 bits, for which one step of Newton's
// suffices in single precision; a square root and a division take five times as long.
template <class T>
inline Vec<T> reciprocal_root(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> estimate = _mm512_maskz_rsqrt14_ps(0xffff, x);
    return estimate + estimate * T(0.5) * (1 - x * estimate * estimate);
  }
#endif
  Vec<T> root;
  for (int i = 0; i < kLanes<T>; ++i) root[i] = sizeof(T) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
  return 1 / root;
}

}  // namespace
