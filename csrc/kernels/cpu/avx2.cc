// The kernels for AVX2 with FMA and F16C.
#include "kernels/cpu/engines-inl.h"
#include "kernels/cpu/gram-inl.h"

namespace linreg_ops {
namespace cpu {

const KernelTable& kAvx2Kernels = kTable;
const GramKernels& kAvx2Gram = kGram;

}  // namespace cpu
}  // namespace linreg_ops
