#include "cpu/pieces.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <utility>

namespace mow::cpu {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMostBytes = 0;  // in a piece larger than was asked for, it would not see the end overrun
#else
constexpr size_t kMostBytes = size_t{8} << 20;
#endif

class Pieces : public std::array<Piece, 4> {
 public:
  ~Pieces() {
    for (const Piece& piece : *this) std::free(piece.memory);
  }
};

thread_local Pieces kept;

}  // namespace

Piece take_piece(size_t bytes) {
  Piece* best = nullptr;
  for (Piece& piece : kept) {
    if (piece.bytes >= bytes && (best == nullptr || piece.bytes < best->bytes)) best = &piece;
  }
  if (best != nullptr && best->memory != nullptr) return std::exchange(*best, {});
  const size_t rounded = std::max<size_t>((bytes + 63) / 64 * 64, 64);
  void* memory = std::aligned_alloc(64, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return {memory, rounded};
}

// In the place of the smallest one.
void give_back(Piece piece) {
  if (piece.bytes <= kMostBytes) {
    std::swap(piece, *std::min_element(kept.begin(), kept.end(), [](auto& a, auto& b) { return a.bytes < b.bytes; }));
  }
  std::free(piece.memory);
}

}  // namespace mow::cpu
