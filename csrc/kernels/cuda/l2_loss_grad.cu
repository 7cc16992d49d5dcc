// The CUDA half of the kernel API: what it checks before anything is launched.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/cuda/descent.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/single_pass.h"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {
namespace {

// The driver takes it from the machine code or compiles it, as it does every kernel here.
__global__ void ProbeKernel() {}

// Empty arrays may have sizes of any magnitude; up to this, no product of sizes overflows.
constexpr std::int64_t kLargestSize = std::int64_t{1} << 48;

bool SizesFit(const Shape& shape) { return std::max({shape.n, shape.d, shape.k}) <= kLargestSize; }

Status CheckSizes(const Shape& shape) {
  if (SizesFit(shape)) return Status();
  return Status::InvalidArgument(
      "sizes on a GPU must be at most 2^48, got n=" + std::to_string(shape.n) +
      ", d=" + std::to_string(shape.d) + ", k=" + std::to_string(shape.k));
}

// Without targets no row counts, however many there are.
Data WithRowsThatCount(const Data& data) {
  Data result = data;
  if (data.shape.k == 0) result.shape.n = 0;
  return result;
}

Status CheckWorkspace(const void* workspace, std::int64_t got, std::int64_t needed) {
  if (got >= needed && (workspace != nullptr || needed == 0)) return Status();
  return Status::InvalidArgument("the workspace has " +
                                 std::to_string(workspace == nullptr ? 0 : got) +
                                 " bytes, but this call needs " + std::to_string(needed));
}

Status CheckDevice(const Device& device) {
  if (device.multiprocessors > 0 && device.shared_per_block > 0) return Status();
  return Status::InvalidArgument("the device has no multiprocessors: fill it by CurrentDevice");
}

}  // namespace

bool Compiled() { return true; }

Status CurrentDevice(Device* device) {
  int ordinal = 0;
  Status status = CheckCuda(cudaGetDevice(&ordinal), "finding the current CUDA device");
  const auto get = [&](cudaDeviceAttr attribute) {
    int value = 0;
    if (status.ok()) {
      status = CheckCuda(cudaDeviceGetAttribute(&value, attribute, ordinal),
                         "reading the properties of CUDA device " + std::to_string(ordinal));
    }
    return value;
  };
  device->multiprocessors = get(cudaDevAttrMultiProcessorCount);
  device->compute_capability = 10 * get(cudaDevAttrComputeCapabilityMajor);
  device->compute_capability += get(cudaDevAttrComputeCapabilityMinor);
  device->shared_per_block = get(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  device->shared_per_multiprocessor = get(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  device->shared_reserved = get(cudaDevAttrReservedSharedMemoryPerBlock);
  device->l2_bytes = get(cudaDevAttrL2CacheSize);
  device->cooperative_launch = get(cudaDevAttrCooperativeLaunch) != 0;
  if (!status.ok()) return status;
  // A build for older GPUs alone runs on newer ones.
  cudaFuncAttributes attributes = {};
  status = CheckCuda(cudaFuncGetAttributes(&attributes, ProbeKernel),
                     "loading the kernels on CUDA device " + std::to_string(ordinal));
  device->code = attributes.ptxVersion;
  return status;
}

std::int64_t WorkspaceBytes(const Data& data, const Device& device, bool gemm) {
  return SizesFit(data.shape) ? LossGradBytes(WithRowsThatCount(data), device, gemm) : 0;
}

std::int64_t DescentWorkspaceBytes(const Data& data, const Descent& descent, const Device& device,
                                   bool gemm) {
  return SizesFit(data.shape) ? DescentBytes(WithRowsThatCount(data), descent, device, gemm) : 0;
}

Status ComputeLossGrad(const Data& data, const LossGrad& out, const Device& device, void* stream,
                       void* workspace, std::int64_t workspace_bytes, const Gemm& gemm) {
  Status status = Validate(data);
  if (status.ok()) status = CheckSizes(data.shape);
  if (status.ok()) status = CheckDevice(device);
  if (status.ok()) {
    status = CheckWorkspace(workspace, workspace_bytes,
                            WorkspaceBytes(data, device, gemm.run != nullptr));
  }
  if (!status.ok()) return status;
  FinishArgs outputs;
  outputs.loss_type = outputs.grad_type = data.w_type;
  outputs.loss_per_target = out.loss_per_target;
  outputs.loss_out = out.loss;
  outputs.grad_out = out.grad;
  return LaunchLossGrad(WithRowsThatCount(data), data.w_type, outputs, device,
                        static_cast<cudaStream_t>(stream), workspace, gemm);
}

Status ComputeDescent(const Data& data, const Descent& descent, const Device& device, void* stream,
                      void* workspace, std::int64_t workspace_bytes, const Gemm& gemm) {
  Status status = Validate(data, descent);
  if (status.ok()) status = CheckSizes(data.shape);
  if (status.ok()) status = CheckDevice(device);
  if (status.ok()) {
    status = CheckWorkspace(workspace, workspace_bytes,
                            DescentWorkspaceBytes(data, descent, device, gemm.run != nullptr));
  }
  if (!status.ok()) return status;
  return LaunchDescent(WithRowsThatCount(data), descent, device, static_cast<cudaStream_t>(stream),
                       workspace, gemm);
}

}  // namespace cuda
}  // namespace linreg_ops
