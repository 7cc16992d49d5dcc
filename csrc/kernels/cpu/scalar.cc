// The kernels for plain C++. Everything is local to this unit: compiled with its
// flags, no inline function of it may be shared with others.
#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

// clang-format off: each builds on the ones before
#include "kernels/cpu/half.h"
#include "kernels/cpu/vec_common.h"
#include "kernels/cpu/vec_scalar.h"
#include "kernels/cpu/few_targets.h"
#include "kernels/cpu/many_targets.h"
#include "kernels/cpu/kernels.h"
// clang-format on

}  // namespace

const KernelTable& kScalarKernels = kTable;

}  // namespace cpu
}  // namespace linreg_ops
