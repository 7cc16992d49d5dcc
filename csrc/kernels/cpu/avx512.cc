// The kernels for AVX-512 (F, BW, DQ, VL, F16C).
#include "kernels/cpu/engines-inl.h"

namespace linreg_ops {
namespace cpu {

const KernelTable& kAvx512Kernels = kTable;

}  // namespace cpu
}  // namespace linreg_ops
