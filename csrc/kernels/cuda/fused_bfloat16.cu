#include "kernels/cuda/fused_launch.cuh"

template linreg_ops::Status linreg_ops::cuda::LaunchFused<__nv_bfloat16>(const FusedArgs&, bool,
                                                                         cudaStream_t);
