// The tensor cores' kernel, and its instance for a plan. Included by the translation unit of each
// type.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/tensor.h"
#include "kernels/cuda/tensor_pass.cuh"
#include "kernels/cuda/tensor_plain.cuh"

namespace linreg_ops {
namespace cuda {

template <typename Tile>
__global__ void __launch_bounds__(kThreads, 1)
    TensorKernel(const __grid_constant__ FusedArgs args) {
#if __CUDA_ARCH__ >= 900  // PlanPass gives others none
  extern __shared__ __align__(128) unsigned char shared[];
  if (TensorPass<Tile>(args, shared).Run()) return;
  PlainPass<typename Tile::Number>(args, shared).Run();
#endif
}

template <typename Tile>
Status LaunchTensorTile(const FusedArgs& args, cudaStream_t stream) {
  const FusedPlan& plan = args.plan;
  const LaunchConfig config = {"the tensor cores' kernel",
                               dim3(static_cast<unsigned>(plan.blocks)),
                               plan.threads,
                               static_cast<std::size_t>(plan.shared_bytes),
                               false,
                               stream};
  return Launch(config, TensorKernel<Tile>, args);
}

template <typename Of8, typename Of16>
Status LaunchByTargets(const FusedArgs& args, cudaStream_t stream) {
  return args.plan.tensor.targets == 8 ? LaunchTensorTile<Of8>(args, stream)
                                       : LaunchTensorTile<Of16>(args, stream);
}

}  // namespace cuda
}  // namespace linreg_ops
