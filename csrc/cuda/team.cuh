// The blocks that work on one small window: a thread-block cluster where the device has them, else one block.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace mow::cuda {

// What a cluster needs, or its plain twin, a single block.
struct Team {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  __device__ static int rank() { return int(cooperative_groups::this_cluster().block_rank()); }
  __device__ static int size() { return int(cooperative_groups::this_cluster().num_blocks()); }
  __device__ static void sync() { cooperative_groups::this_cluster().sync(); }
  // The same shared variable in another block of the team; between two calls of `sync`.
  template <class T>
  __device__ static T* of(T* shared, int rank) {
    return cooperative_groups::this_cluster().map_shared_rank(shared, rank);
  }
#else
  __device__ static int rank() { return 0; }
  __device__ static int size() { return 1; }
  __device__ static void sync() { __syncthreads(); }
  template <class T>
  __device__ static T* of(T* shared, int) {
    return shared;
  }
#endif
};

// A block's shared memory of the size that its launch named, aligned to 16 bytes.
#if defined(__CUDACC__)
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
#else
unsigned char* dynamic_shared();
#endif

constexpr int kMostBlocks = 8;  // of a cluster that every device with clusters can run

// Whether a device with clusters runs code that knows of them: one that is newer than all others here runs the newest.
constexpr bool kKnowsClusters = std::max({__CUDA_ARCH_LIST__}) >= 900;

// A threshold of a plan, which an environment variable may set for measuring.
inline int64_t threshold(const char* variable, int64_t otherwise) {
  const char* const given = std::getenv(variable);
  return given ? std::atoll(given) : otherwise;
}

// How many blocks a team of at most `wanted` has on the current device: a power of two. The environment variable
// MOW_CUDA_CLUSTER, read at the first call, sets a limit: 1 for no clusters.
inline int team_size(int64_t wanted) {
  static const int64_t most = threshold("MOW_CUDA_CLUSTER", kMostBlocks);
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  int size = 1;
  while (kKnowsClusters && major >= 9 && 2 * size <= wanted && 2 * size <= most && 2 * size <= kMostBlocks) size *= 2;
  return size;
}

constexpr int64_t kDefaultShared = 48 << 10;  // bytes of shared memory that a block gets without asking
constexpr int64_t kMostShared = 96 << 10;     // that one gets on every device from compute capability 8.0 on

// Launches `blocks` blocks in teams of `team`.
template <class... Parameters>
cudaError_t launch(
    void (*kernel)(Parameters...), dim3 blocks, int threads, int64_t shared, int team, cudaStream_t stream,
    Parameters... parameters) {
  if (shared > kDefaultShared) {
    const auto failed = cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    if (failed != cudaSuccess) return failed;
  }
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = unsigned(team);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(unsigned(threads), 1, 1);
  config.dynamicSmemBytes = size_t(shared);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = team > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, parameters...);
}

}  // namespace mow::cuda
