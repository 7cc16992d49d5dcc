// The CUDA kernels for Python: arrays on the GPU of any library that speaks DLPack.
#pragma once

#include <pybind11/pybind11.h>

namespace linreg_ops {

// Adds the submodule `cuda`, in a build with CUDA; does nothing in one without.
void RegisterCuda(pybind11::module_& module);

}  // namespace linreg_ops
