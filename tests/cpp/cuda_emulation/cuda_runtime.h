// Stands in for the CUDA runtime's header: see README.md.
#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __host__
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint4 {
  unsigned x, y, z, w;
};

namespace linreg_ops {
namespace cuda {
// What `extern __shared__ unsigned char shared[]` in a kernel refers to.
inline constexpr std::size_t kEmulatedSharedBytes = 256 << 10;
extern unsigned char shared[];
}  // namespace cuda
}  // namespace linreg_ops

namespace cuda_emulation {

[[noreturn]] inline void Fail(const char* what) {
  std::fprintf(stderr, "CUDA emulation: %s\n", what);
  std::abort();
}

// Threads that wait for each other, over and over.
struct Barrier {
  int members = 0, arrived = 0;
  std::uint64_t generation = 0;
  void Release() {
    arrived = 0;
    ++generation;
  }
};

struct PendingCopy {
  void* to;
  const void* from;
  std::size_t bytes;
};

struct BulkBarrier {
  std::uint64_t completed = 0;
  std::int64_t expected = -1;  // bytes of the phase, or not announced yet
  std::vector<PendingCopy> copies;
};

struct Fiber {
  dim3 thread;
  int warp = 0, lane = 0;
  bool started = false, done = false, slept = false;
  const std::uint64_t* awaited = nullptr;  // runnable when *awaited != seen
  std::uint64_t seen = 0;
  std::vector<std::vector<PendingCopy>> groups;
  std::vector<PendingCopy> open_group;
  std::unique_ptr<char[]> stack;
  ucontext_t context;
  jmp_buf jump;
};

struct Warp {
  Barrier barrier;
  std::uint64_t slot[2][32];
};

struct Block {
  dim3 index;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  int alive = 0;
  std::map<void*, BulkBarrier> bulk;
  std::vector<unsigned char> shared;
};

struct Machine {
  Block* block = nullptr;
  Fiber* fiber = nullptr;
  std::size_t shared_bytes = 0;
  std::function<void()> body;
  jmp_buf scheduler;
  int order = 1;
  int launches = 0;
  int graph_launches = 0;
  std::size_t copied_bytes = 0;        // by asynchronous copies
  unsigned resident_blocks = 1 << 20;  // of a cooperative launch, at most
  int ptx_version = 90;
  std::map<const void*, int> shared_limit;        // of the kernels that asked for one
  std::function<void()> after_asking_for_shared;  // what another thread does just then
  int calls_until_error = -1;                     // of the runtime; negative: none fails
  int error = 0;
  std::vector<std::pair<const char*, const char*>> arrays;  // registered, for bounds
};
Machine& machine();

inline void SwitchToScheduler() {
  Fiber* fiber = machine().fiber;
  if (_setjmp(fiber->jump) == 0) _longjmp(machine().scheduler, 1);
}

inline void Await(Barrier& barrier) {
  Fiber* fiber = machine().fiber;
  if (++barrier.arrived >= barrier.members) {
    barrier.Release();
    return;
  }
  fiber->awaited = &barrier.generation;
  fiber->seen = barrier.generation;
  SwitchToScheduler();
}

inline void CheckCopy(const PendingCopy& copy) {
  const auto to = static_cast<unsigned char*>(copy.to);
  if (reinterpret_cast<std::uintptr_t>(copy.to) % 16 ||
      reinterpret_cast<std::uintptr_t>(copy.from) % 16 || copy.bytes % 16) {
    Fail("misaligned asynchronous copy");
  }
  using linreg_ops::cuda::shared;
  if (to < shared || to + copy.bytes > shared + machine().shared_bytes) {
    Fail("asynchronous copy outside the block's shared memory");
  }
  const auto from = static_cast<const char*>(copy.from);
  bool inside = machine().arrays.empty();
  for (const auto& array : machine().arrays) {
    inside |= from >= array.first && from + copy.bytes <= array.second;
  }
  if (!inside) Fail("asynchronous copy from outside an array");
  std::memset(copy.to, 0xff, copy.bytes);
  machine().copied_bytes += copy.bytes;
}

inline void Perform(std::vector<PendingCopy>& copies) {
  for (const PendingCopy& copy : copies) std::memcpy(copy.to, copy.from, copy.bytes);
  copies.clear();
}

template <typename T>
T ShuffleXor(T value, int mask) {
  static_assert(sizeof(T) <= 8);
  Fiber* fiber = machine().fiber;
  Warp& warp = machine().block->warps[fiber->warp];
  const int parity = warp.barrier.generation & 1;
  std::memcpy(&warp.slot[parity][fiber->lane], &value, sizeof(T));
  Await(warp.barrier);
  T result;
  std::memcpy(&result, &warp.slot[parity][fiber->lane ^ mask], sizeof(T));
  return result;
}

void RunGrid(bool cooperative);

// Whether it is this call's turn to fail.
inline bool Fails() {
  return machine().calls_until_error >= 0 && machine().calls_until_error-- == 0;
}

}  // namespace cuda_emulation

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorCooperativeLaunchTooLarge = 720,
  cudaErrorNotSupported = 801,
};

// Calls that may be made to fail begin with this.
#define CUDA_EMULATION_MAY_FAIL \
  if (cuda_emulation::Fails()) return static_cast<cudaError_t>(cuda_emulation::machine().error)

#include "streams_and_memory.h"

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the fiber that runs

inline void __syncthreads() { cuda_emulation::Await(cuda_emulation::machine().block->barrier); }
inline void __threadfence() {}
inline void __nanosleep(unsigned) {
  cuda_emulation::machine().fiber->slept = true;
  cuda_emulation::SwitchToScheduler();
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_emulation::ShuffleXor(value, mask);
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {
  return *p;
}
inline unsigned atomicAdd(unsigned* p, unsigned value) {
  const unsigned old = *p;
  *p += value;
  return old;
}

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrReservedSharedMemoryPerBlock,
  cudaDevAttrL2CacheSize,
  cudaDevAttrCooperativeLaunch,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributeCooperative };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int cooperative;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "an error of the emulation"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  CUDA_EMULATION_MAY_FAIL;
  *device = 0;
  return cudaSuccess;
}
// An H100's figures, but so few multiprocessors that small tests have several tiles a block.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  CUDA_EMULATION_MAY_FAIL;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 3;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 232448;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 233472;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1 << 20;
      break;
    default:
      *value = 1;
  }
  return cudaSuccess;
}
struct cudaFuncAttributes {
  int ptxVersion;
};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*)()) {
  CUDA_EMULATION_MAY_FAIL;
  attributes->ptxVersion = cuda_emulation::machine().ptx_version;
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  CUDA_EMULATION_MAY_FAIL;
  if (bytes > 232448) return cudaErrorInvalidValue;
  cuda_emulation::machine().shared_limit[kernel] = bytes;
  const auto meanwhile = std::exchange(cuda_emulation::machine().after_asking_for_shared, {});
  if (meanwhile) meanwhile();
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  CUDA_EMULATION_MAY_FAIL;
  auto& machine = cuda_emulation::machine();
  if (config->gridDim.x == 0 || config->blockDim.x == 0) return cudaErrorInvalidValue;
  const bool cooperative = config->numAttrs > 0;
  if (cooperative && config->gridDim.x > machine.resident_blocks) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  constexpr std::size_t kWithoutOptIn = 48 << 10;
  const auto limit = machine.shared_limit.find(reinterpret_cast<const void*>(kernel));
  if (config->dynamicSmemBytes > (limit == machine.shared_limit.end()
                                      ? kWithoutOptIn
                                      : static_cast<std::size_t>(limit->second))) {
    return cudaErrorInvalidValue;
  }
  const auto launch = [config = *config, cooperative, kernel,
                       copies = std::tuple<Parameters...>(arguments...)] {
    auto& machine = cuda_emulation::machine();
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    machine.shared_bytes = config.dynamicSmemBytes;
    machine.body = [&] { std::apply(kernel, copies); };
    ++machine.launches;
    cuda_emulation::RunGrid(cooperative);
  };
  cuda_emulation::Enqueue(config->stream, launch);
  return cudaSuccess;
}
