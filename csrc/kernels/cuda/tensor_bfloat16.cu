#include "kernels/cuda/tensor_bfloat16.cuh"
#include "kernels/cuda/tensor_launch.cuh"

namespace linreg_ops {
namespace cuda {

Status LaunchTensorBfloat16(const FusedArgs& args, cudaStream_t stream) {
  return args.plan.tensor.columns == 64
             ? LaunchByTargets<Bfloat16Tile<1, 4>, Bfloat16Tile<2, 4>>(args, stream)
             : LaunchByTargets<Bfloat16Tile<1, 8>, Bfloat16Tile<2, 8>>(args, stream);
}

}  // namespace cuda
}  // namespace linreg_ops
