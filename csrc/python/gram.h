// The Gram engine on NumPy arrays.
#pragma once

#include <pybind11/pybind11.h>

namespace linreg_ops {

void RegisterGram(pybind11::module_& m);

}  // namespace linreg_ops
