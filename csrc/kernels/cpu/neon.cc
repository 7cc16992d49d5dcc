// The kernels for AArch64 NEON.
#include "kernels/cpu/engines-inl.h"
#include "kernels/cpu/gram-inl.h"

namespace linreg_ops {
namespace cpu {

const KernelTable& kNeonKernels = kTable;
const GramKernels& kNeonGram = kGram;

}  // namespace cpu
}  // namespace linreg_ops
