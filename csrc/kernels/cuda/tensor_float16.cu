#include "kernels/cuda/tensor_launch.cuh"
#include "kernels/cuda/tensor_pieces.cuh"

namespace linreg_ops {
namespace cuda {

Status LaunchTensorFloat16(const FusedArgs& args, cudaStream_t stream) {
  return LaunchByTargets<PiecesTile<__half, 1, 2>, PiecesTile<__half, 2, 2>>(args, stream);
}

}  // namespace cuda
}  // namespace linreg_ops
