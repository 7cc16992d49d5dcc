// A build without CUDA.
#include "python/cuda_arrays.h"

namespace linreg_ops {

void RegisterCuda(pybind11::module_&) {}

}  // namespace linreg_ops
