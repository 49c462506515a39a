// Aligned memory that gives itself back. A thread keeps a few pieces that it gave back, for its next calls: where the
// window is small, allocating takes some per cent of the time, and for megabytes the system takes longer to hand out pages
// than a kernel to fill them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace mow::cpu {

class Pieces {
 public:
  struct Piece {
    void* memory = nullptr;
    size_t bytes = 0;
  };

  // The smallest that is large enough, or a new one.
  static Piece take(size_t bytes) {
    Piece* best = nullptr;
    for (Piece& piece : kept().pieces_) {
      if (piece.bytes >= bytes && (best == nullptr || piece.bytes < best->bytes)) best = &piece;
    }
    if (best != nullptr) return std::exchange(*best, {});
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return {memory, bytes};
  }

  // In the place of the smallest one.
  static void give_back(Piece piece) {
    if (piece.bytes <= kMostBytes) {
      auto& pieces = kept().pieces_;
      std::swap(piece, *std::min_element(pieces.begin(), pieces.end(), [](auto& a, auto& b) { return a.bytes < b.bytes; }));
    }
    std::free(piece.memory);
  }

  ~Pieces() {
    for (const Piece& piece : pieces_) std::free(piece.memory);
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kMostBytes = 0;  // in a piece larger than was asked for, it would not see the end overrun
#else
  static constexpr size_t kMostBytes = size_t{8} << 20;
#endif

  std::array<Piece, 4> pieces_;

  static Pieces& kept() {
    static thread_local Pieces pieces;
    return pieces;
  }
};

struct GiveBack {
  size_t bytes = 0;

  void operator()(void* memory) const { Pieces::give_back({memory, bytes}); }
};

template <class T>
using Buffer = std::unique_ptr<T[], GiveBack>;

// Uninitialised, and aligned for every vector.
template <class T>
Buffer<T> allocate(int64_t count) {
  const Pieces::Piece piece = Pieces::take(std::max<size_t>((count * sizeof(T) + 63) / 64 * 64, 64));
  return Buffer<T>(static_cast<T*>(piece.memory), GiveBack{piece.bytes});
}

}  // namespace mow::cpu
