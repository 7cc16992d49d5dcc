// Which instruction sets are compiled in, which run here, and which is in use.
#pragma once

#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {

// The kernels of `isa` (null: the one in use) for a valid pair of types, and its name.
Status FindKernels(const char* isa, DType x_type, DType w_type, const char** name,
                   const Kernels** kernels);

}  // namespace cpu
}  // namespace linreg_ops
