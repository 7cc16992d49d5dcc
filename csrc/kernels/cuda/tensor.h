// The tensor cores' kernel's launches; one translation unit for each type of X.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/args.cuh"

namespace linreg_ops {
namespace cuda {

// For a plan whose path is kTensorCores.
Status LaunchTensorBfloat16(const FusedArgs& args, cudaStream_t stream);
Status LaunchTensorFloat32(const FusedArgs& args, cudaStream_t stream);
Status LaunchTensorFloat16(const FusedArgs& args, cudaStream_t stream);

}  // namespace cuda
}  // namespace linreg_ops
