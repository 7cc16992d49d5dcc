#include "kernels/cuda/tensor_launch.cuh"
#include "kernels/cuda/tensor_pieces.cuh"

namespace linreg_ops {
namespace cuda {

Status LaunchTensorFloat32(const FusedArgs& args, cudaStream_t stream) {
  return args.plan.tensor.targets == 8 ? LaunchTensorTile<PiecesTile<float, 1, 2>>(args, stream)
                                       : LaunchTensorTile<PiecesTile<float, 2, 2>>(args, stream);
}

}  // namespace cuda
}  // namespace linreg_ops
