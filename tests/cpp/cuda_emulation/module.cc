// The emulated kernels as a Python module: see README.md.
#include "python/cuda_arrays.h"

PYBIND11_MODULE(_cuda_emulated, m) { linreg_ops::RegisterCuda(m); }
