// Aligned memory that frees itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace mow::cpu {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

template <class T>
using Buffer = std::unique_ptr<T[], Free>;

// Uninitialised, and aligned for every vector.
template <class T>
Buffer<T> allocate(int64_t count) {
  const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, std::max<size_t>(bytes, 64));
  if (memory == nullptr) throw std::bad_alloc();
  return Buffer<T>(static_cast<T*>(memory));
}

// The same, but a thread keeps the last it had, if that was not large: the system takes longer to hand out pages than a
// kernel to fill them.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : piece_(std::exchange(kept(), {})) {
    const int64_t bytes = count * int64_t(sizeof(T));
    if (piece_.bytes < bytes) piece_ = {allocate<char>(bytes), bytes};
  }
  ~Scratch() {
    if (piece_.bytes <= kMostKept) kept() = std::move(piece_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return reinterpret_cast<T*>(piece_.memory.get()); }

 private:
  static constexpr int64_t kMostKept = int64_t{16} << 20;

  struct Piece {
    Buffer<char> memory;
    int64_t bytes = 0;
  };
  static Piece& kept() {
    static thread_local Piece piece;
    return piece;
  }

  Piece piece_;
};

}  // namespace mow::cpu
