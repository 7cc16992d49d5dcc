#include "kernels/cuda/tensor_bfloat16.cuh"
#include "kernels/cuda/tensor_launch.cuh"

namespace linreg_ops {
namespace cuda {

Status LaunchTensorBfloat16(const FusedArgs& args, cudaStream_t stream) {
  const TensorPlan& plan = args.plan.tensor;
  if (plan.columns == 64) {
    return plan.targets == 8 ? LaunchTensorTile<Bfloat16Tile<1, 4>>(args, stream)
                             : LaunchTensorTile<Bfloat16Tile<2, 4>>(args, stream);
  }
  return plan.targets == 8 ? LaunchTensorTile<Bfloat16Tile<1, 8>>(args, stream)
                           : LaunchTensorTile<Bfloat16Tile<2, 8>>(args, stream);
}

}  // namespace cuda
}  // namespace linreg_ops
