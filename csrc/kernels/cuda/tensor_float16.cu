#include "kernels/cuda/tensor_launch.cuh"
#include "kernels/cuda/tensor_pieces.cuh"

namespace linreg_ops {
namespace cuda {

Status LaunchTensorFloat16(const FusedArgs& args, cudaStream_t stream) {
  return args.plan.tensor.targets == 8 ? LaunchTensorTile<PiecesTile<__half, 1, 2>>(args, stream)
                                       : LaunchTensorTile<PiecesTile<__half, 2, 2>>(args, stream);
}

}  // namespace cuda
}  // namespace linreg_ops
