#include "kernels/cuda/fused_launch.cuh"

template linreg_ops::Status linreg_ops::cuda::LaunchFused<double>(const FusedArgs&, bool,
                                                                  cudaStream_t);
