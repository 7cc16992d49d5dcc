// The fused kernel's launches; one translation unit for each type of X.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/args.cuh"

namespace linreg_ops {
namespace cuda {

template <typename T>
Status LaunchFused(const FusedArgs& args, bool cooperative, cudaStream_t stream);

extern template Status LaunchFused<float>(const FusedArgs&, bool, cudaStream_t);
extern template Status LaunchFused<double>(const FusedArgs&, bool, cudaStream_t);
extern template Status LaunchFused<__half>(const FusedArgs&, bool, cudaStream_t);
extern template Status LaunchFused<__nv_bfloat16>(const FusedArgs&, bool, cudaStream_t);

}  // namespace cuda
}  // namespace linreg_ops
