// The cluster of blocks that a thread belongs to, and its grid (cuda_runtime.h beside this file).
#pragma once

#include "cuda_runtime.h"

namespace cuda_shim {

unsigned team_rank();
unsigned team_size();
unsigned char* shared_of(unsigned rank);

}  // namespace cuda_shim

namespace cooperative_groups {

struct Cluster {
  unsigned block_rank() const { return cuda_shim::team_rank(); }
  unsigned num_blocks() const { return cuda_shim::team_size(); }
  void sync() const { cuda_shim::barrier(cuda_shim::Scope::kTeam); }

  template <class T>
  T* map_shared_rank(T* shared, unsigned rank) const {
    const auto offset = reinterpret_cast<unsigned char*>(shared) - cuda_shim::shared_of(team_rank());
    return reinterpret_cast<T*>(cuda_shim::shared_of(rank) + offset);
  }

 private:
  static unsigned team_rank() { return cuda_shim::team_rank(); }
};

inline Cluster this_cluster() { return {}; }

// Of a cooperative launch, whose blocks are all in one team.
struct Grid {
  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    cuda_shim::barrier(cuda_shim::Scope::kTeam, file, line);
  }
};

inline Grid this_grid() { return {}; }

}  // namespace cooperative_groups
