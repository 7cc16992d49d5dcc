// A whole gradient descent: the launches, without the checks.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

Status LaunchDescent(const Data& data, const Descent& descent, const Device& device,
                     cudaStream_t stream, void* workspace, const Gemm& gemm);
// Bytes of its workspace.
// `gemm`: whether the call brings one.
std::int64_t DescentBytes(const Data& data, const Descent& descent, const Device& device,
                          bool gemm);

}  // namespace cuda
}  // namespace linreg_ops
