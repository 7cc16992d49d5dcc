// The chunk path's launches; chunked.cuh has the kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

std::int64_t ChunkedWorkspaceBytes(const Data& data, const Device& device);

// `w_type`: of data.w, which a descent keeps in the accumulator's type. `finish` names the outputs.
Status ComputeChunked(const Data& data, DType w_type, FinishArgs finish, const Device& device,
                      cudaStream_t stream, void* workspace, const Gemm& gemm);

// Sums the partial sums that `args` names.
Status LaunchFinish(const FinishArgs& args, cudaStream_t stream);

// One step of a descent, or its first state, or its result: see StepArgs.
struct StepArgs;
Status LaunchStep(const StepArgs& args, DType x_type, const Device& device, cudaStream_t stream);

// Copies a schedule to the device; `rates` may be freed when this returns.
Status StoreRates(const double* rates, std::int64_t count, double* to, cudaStream_t stream);

}  // namespace cuda
}  // namespace linreg_ops
