// Aligned memory that a thread keeps for its next calls: where the window is small, allocating takes some per cent of the
// time, and for megabytes the system takes longer to hand out pages than a kernel to fill them.
#pragma once

#include <cstddef>

namespace mow::cpu {

struct Piece {
  void* memory = nullptr;
  size_t bytes = 0;
};

// Aligned for every vector, uninitialised. Throws std::bad_alloc.
Piece take_piece(size_t bytes);

// The thread keeps a few of them, and only such as are not too large.
void give_back(Piece piece);

}  // namespace mow::cpu
