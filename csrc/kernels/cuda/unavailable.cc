// The CUDA half of the kernel API in a build without CUDA: every call says so.
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {
namespace {

Status Unsupported() {
  return {Status::Code::kUnsupported,
          "this build of linreg_ops has no CUDA kernels: rebuild it with LINREG_OPS_CUDA=on"};
}

}  // namespace

bool Compiled() { return false; }

Status CurrentDevice(Device*) { return Unsupported(); }

std::int64_t WorkspaceBytes(const Data&, const Device&, bool) { return 0; }

std::int64_t DescentWorkspaceBytes(const Data&, const Descent&, const Device&, bool) { return 0; }

Status ComputeLossGrad(const Data&, const LossGrad&, const Device&, void*, void*, std::int64_t,
                       const Gemm&) {
  return Unsupported();
}

Status ComputeDescent(const Data&, const Descent&, const Device&, void*, void*, std::int64_t,
                      const Gemm&) {
  return Unsupported();
}

}  // namespace cuda
}  // namespace linreg_ops
