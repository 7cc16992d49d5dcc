// The kernels for AVX2 with FMA and F16C.
#include "kernels/cpu/engines-inl.h"

namespace linreg_ops {
namespace cpu {

const KernelTable& kAvx2Kernels = kTable;

}  // namespace cpu
}  // namespace linreg_ops
