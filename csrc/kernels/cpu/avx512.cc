// The kernels for AVX-512 (F, BW, DQ, VL, F16C).
#include "kernels/cpu/engines-inl.h"
#include "kernels/cpu/gram-inl.h"

namespace linreg_ops {
namespace cpu {

const KernelTable& kAvx512Kernels = kTable;
const GramKernels& kAvx512Gram = kGram;

}  // namespace cpu
}  // namespace linreg_ops
