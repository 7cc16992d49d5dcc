// The emulated kernels as a Python module: see README.md.
#include <cuda_runtime.h>

#include <cstdint>

#include "python/cuda_arrays.h"

PYBIND11_MODULE(_cuda_emulated, m) {
  linreg_ops::RegisterCuda(m);
  m.def("new_stream", [] { return reinterpret_cast<std::uintptr_t>(new CUstream_st); });
}
