#include "kernels/cuda/fused_launch.cuh"

template linreg_ops::Status linreg_ops::cuda::LaunchFused<float>(const FusedArgs&, bool,
                                                                 cudaStream_t);
