// Kernel launches whose errors become a Status that names the launch; kUnsupported if the blocks of
// a cooperative one cannot all be resident at once.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

inline Status CheckCuda(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return Status();
  cudaGetLastError();  // clears it, unless it is sticky
  std::string message = what + " failed: " + cudaGetErrorName(error) + " (error " +
                        std::to_string(static_cast<int>(error)) + "): " + cudaGetErrorString(error);
  if (error == cudaErrorInsufficientDriver) {
    message += ". This machine has no NVIDIA driver, or one too old for CUDA " +
               std::to_string(CUDART_VERSION / 1000) + "." +
               std::to_string(CUDART_VERSION % 1000 / 10) +
               ", which these kernels were built with: it needs driver " +
               (CUDART_VERSION >= 13000 ? "r580" : "r525") + " or newer";
  } else if (error == cudaErrorNoKernelImageForDevice) {
    message += ". This build has no code for this GPU; LINREG_OPS_CUDA_ARCHITECTURES chooses it";
  }
  return {Status::Code::kInternal, message};
}

struct LaunchConfig {
  const char* name;  // of the kernel, for errors
  dim3 grid;
  int threads;
  std::size_t shared_bytes;
  bool cooperative;
  cudaStream_t stream;
};

// Lets the kernel have as much shared memory as the device has for a block, whatever this launch
// needs: the limit belongs to the kernel, which another thread may be launching with another size.
// Once for each device, because the driver is slow to answer. How a multiprocessor divides its
// memory between that and L1 is left to the driver: no plan has more blocks than the device has
// multiprocessors, and what shared memory does not need is the loads'.
inline Status AllowSharedMemory(const void* kernel, const LaunchConfig& config) {
  static std::mutex mutex;
  static auto* const allowed = new std::set<std::pair<const void*, int>>;  // never destroyed
  int device = 0, limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (allowed->count({kernel, device}) != 0) return Status();
    error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
  }
  if (error == cudaSuccess) {
    const std::lock_guard<std::mutex> lock(mutex);
    allowed->insert({kernel, device});
  }
  return CheckCuda(error, std::string("asking for ") + std::to_string(config.shared_bytes) +
                              " bytes of shared memory for " + config.name);
}

template <typename... Parameters, typename... Arguments>
Status Launch(const LaunchConfig& config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  constexpr std::size_t kWithoutOptIn = 48 << 10;
  if (config.shared_bytes > kWithoutOptIn) {
    Status status = AllowSharedMemory(reinterpret_cast<const void*>(kernel), config);
    if (!status.ok()) return status;
  }
  cudaLaunchConfig_t launch = {};
  launch.gridDim = config.grid;
  launch.blockDim = dim3(static_cast<unsigned>(config.threads));
  launch.dynamicSmemBytes = config.shared_bytes;
  launch.stream = config.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  launch.attrs = &attribute;
  launch.numAttrs = config.cooperative ? 1 : 0;
  const cudaError_t error =
      cudaLaunchKernelEx(&launch, kernel, std::forward<Arguments>(arguments)...);
  Status status = CheckCuda(error, std::string("launching ") + config.name);
  if (config.cooperative &&
      (error == cudaErrorCooperativeLaunchTooLarge || error == cudaErrorNotSupported)) {
    return {Status::Code::kUnsupported, status.message()};
  }
  return status;
}

}  // namespace cuda
}  // namespace linreg_ops
