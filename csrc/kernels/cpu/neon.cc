// The kernels for AArch64 NEON.
#include "kernels/cpu/engines-inl.h"

namespace linreg_ops {
namespace cpu {

const KernelTable& kNeonKernels = kTable;

}  // namespace cpu
}  // namespace linreg_ops
