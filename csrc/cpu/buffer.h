// Memory that gives itself back (csrc/cpu/pieces.h).
#pragma once

#include <cstdint>
#include <memory>

#include "cpu/pieces.h"

namespace mow::cpu {

struct GiveBack {
  size_t bytes = 0;

  void operator()(void* memory) const { give_back({memory, bytes}); }
};

template <class T>
using Buffer = std::unique_ptr<T[], GiveBack>;

// Uninitialised, and aligned for every vector.
template <class T>
Buffer<T> allocate(int64_t count) {
  const Piece piece = take_piece(count * sizeof(T));
  return Buffer<T>(static_cast<T*>(piece.memory), GiveBack{piece.bytes});
}

}  // namespace mow::cpu
