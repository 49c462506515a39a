// Just enough of CUDA for the kernels of csrc/cuda to run on the CPU, compiled by an ordinary C++ compiler. Test only.
//
// Every thread is a fiber, and all fibers of a block (of a cluster, where there are clusters) take turns on one thread of
// the host: each runs until it meets a barrier. The order of the turns and that of the blocks can be turned round, which a
// missing barrier does not survive, and ThreadSanitizer is told of the fibers and the barriers, so that it finds races. A
// launch that a device would refuse is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#if !defined(__CUDA_ARCH_LIST__)
#define __CUDA_ARCH_LIST__ 900
#endif
#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = struct CudaStream*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaFuncAttributes {
  int maxThreadsPerBlock;
};
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension, cudaLaunchAttributeCooperative };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
    int cooperative;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);


constexpr int kProcessors = 4, kBlocksOfOne = 2;  // of the device, and what a multiprocessor runs at once

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = kBlocksOfOne;
  return cudaSuccess;
}

namespace cuda_shim {

dim3 thread_index();
dim3 block_index();
dim3 grid_size();

// A coordinate of the thread that asks.
struct Coordinate {
  dim3 (*place)();
  unsigned dim3::* which;

  operator unsigned() const { return place().*which; }
};

struct Place {
  Coordinate x, y, z;
};

constexpr Place read(dim3 (*place)()) { return {{place, &dim3::x}, {place, &dim3::y}, {place, &dim3::z}}; }

enum class Scope { kWarp, kBlock, kTeam };
void barrier(Scope scope, const char* file = nullptr, int line = 0);

unsigned warp_in_team();
unsigned thread_in_team();
int turns();  // the order of the turns: 0, 1 or 2

// Waits until something holds of a word, which others bring about or a copy that was begun and ends as late as can be; where
// it is null, lets others go on.
using Condition = bool (*)(const uint64_t* word, unsigned number);
void wait_until(Condition holds, const uint64_t* word, unsigned number);
struct Copy {
  void (*end)(const Copy&);
  void* to;
  const void* from;
  unsigned bytes;
  uint64_t* word;
};
void end_later(const Copy& copy);

// To ThreadSanitizer: what this thread did before the first is known to that which has passed the second.
void passes(char* to);
void receives(char* from);

unsigned char* shared_memory();  // of the block

// A word that the lanes of a warp exchange.
uint64_t exchange(uint64_t word, int lane_mask);

// Whether one lane of the warp says so.
bool any(bool here);

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread);

}  // namespace cuda_shim

constexpr cuda_shim::Place threadIdx = cuda_shim::read(cuda_shim::thread_index);
constexpr cuda_shim::Place blockIdx = cuda_shim::read(cuda_shim::block_index);
constexpr cuda_shim::Place gridDim = cuda_shim::read(cuda_shim::grid_size);

#define __syncthreads() cuda_shim::barrier(cuda_shim::Scope::kBlock, __FILE__, __LINE__)
inline void __threadfence() {}
inline void __syncwarp(unsigned = 0xffffffff) { cuda_shim::barrier(cuda_shim::Scope::kWarp); }

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }

template <class T>
T atomicAdd(T* to, T value) {
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t word = 0;
  __builtin_memcpy(&word, &value, sizeof value);
  word = cuda_shim::exchange(word, lane_mask);
  __builtin_memcpy(&value, &word, sizeof value);
  return value;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return __shfl_xor_sync(mask, value, int(threadIdx.x % 32) ^ lane);
}

inline int __any_sync(unsigned, int predicate) { return cuda_shim::any(predicate != 0); }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  return cuda_shim::launch(*config, reinterpret_cast<const void*>(kernel), [&] { kernel(arguments...); });
}
