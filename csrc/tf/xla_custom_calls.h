// XLA's way into the CPU kernels: typed-FFI custom calls, so that a compiled program runs the same
// fused pass as the ops and gives the same bits.
#pragma once

namespace linreg_ops {

// Targets. Operands and results are those of the op of the same name, row-major; the attributes are
// `intercept` and, for the first, `loss_per_target`.
inline constexpr char kL2LossGradCall[] = "linreg_l2_loss_grad";
inline constexpr char kHessianVectorProductCall[] = "linreg_hessian_vector_product";
inline constexpr char kGradientDescentCall[] = "linreg_gradient_descent";

// Whether XLA took the handlers. If not, the ops are lowered to plain HLO.
bool HostCustomCallsRegistered();

}  // namespace linreg_ops
