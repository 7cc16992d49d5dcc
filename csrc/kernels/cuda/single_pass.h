// One loss and gradient, on the path that its plan says: the launches, without the checks.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

inline DType AccumulatorType(DType type) {
  return IsWide(type) ? DType::kFloat64 : DType::kFloat32;
}

// Bytes of the fused kernel's partial sums, `sets` times.
std::int64_t PartialsBytes(const Data& data, const FusedPlan& plan, int sets);

// `w_type` is that of data.w, which a descent keeps in the accumulator's type.
FusedArgs MakeFusedArgs(const Data& data, DType w_type, const FusedPlan& plan, double* partials);
Status LaunchFusedFor(DType x_type, const FusedArgs& args, bool cooperative, cudaStream_t stream);

// `outputs` names the outputs and their types.
Status LaunchLossGrad(const Data& data, DType w_type, const FinishArgs& outputs,
                      const Device& device, cudaStream_t stream, void* workspace, const Gemm& gemm);
// Bytes of its workspace.
std::int64_t LossGradBytes(const Data& data, const Device& device, bool gemm);

}  // namespace cuda
}  // namespace linreg_ops
