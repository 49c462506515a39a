// Blocks that wait for each other: those that work on one small window, a thread-block cluster where the device has them and
// else one block; and all of a launch.
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

// All blocks of a launch by `launch_together`.
struct Grid {
  __device__ static void sync() { cooperative_groups::this_grid().sync(); }
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

// How many blocks of a kernel the current device runs at once, 0 where it does not say. Less shared memory than a block gets
// without asking.
template <class... Parameters>
int64_t most_together(void (*kernel)(Parameters...), int threads, int64_t shared) {
  int device = 0, processors = 0, blocks = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, size_t(shared));
  return int64_t(processors) * blocks;
}

template <class... Parameters>
cudaError_t launch_with(
    const cudaLaunchAttribute* attribute, void (*kernel)(Parameters...), dim3 blocks, int threads, int64_t shared,
    cudaStream_t stream, Parameters... parameters) {
  if (shared > kDefaultShared) {
    const auto failed = cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    if (failed != cudaSuccess) return failed;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(unsigned(threads), 1, 1);
  config.dynamicSmemBytes = size_t(shared);
  config.stream = stream;
  config.attrs = const_cast<cudaLaunchAttribute*>(attribute);
  config.numAttrs = attribute ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, parameters...);
}

// Launches `blocks` blocks in teams of `team`.
template <class... Parameters>
cudaError_t launch(
    void (*kernel)(Parameters...), dim3 blocks, int threads, int64_t shared, int team, cudaStream_t stream,
    Parameters... parameters) {
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = unsigned(team);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  return launch_with(team > 1 ? &cluster : nullptr, kernel, blocks, threads, shared, stream, parameters...);
}

// Launches blocks that may wait for each other: no more than `most_together`.
template <class... Parameters>
cudaError_t launch_together(
    void (*kernel)(Parameters...), dim3 blocks, int threads, int64_t shared, cudaStream_t stream,
    Parameters... parameters) {
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  return launch_with(&together, kernel, blocks, threads, shared, stream, parameters...);
}

}  // namespace mow::cuda
