// The chunk path's launches; chunked.cuh has the kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

// `gemm`: whether the call brings one.
std::int64_t ChunkedWorkspaceBytes(const Data& data, const Device& device, bool gemm);

// `w_type`: of data.w, which a descent keeps in the accumulator's type. `finish` names the outputs.
Status ComputeChunked(const Data& data, DType w_type, FinishArgs finish, const Device& device,
                      cudaStream_t stream, void* workspace, const Gemm& gemm);

// Sums the partial sums that `args` names.
Status LaunchFinish(const FinishArgs& args, cudaStream_t stream);

}  // namespace cuda
}  // namespace linreg_ops
