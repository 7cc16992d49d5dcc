// Loss, gradient and descent as plain HLO, for XLA's devices without a custom call of ours.
//
// Sums are kept in float32 or wider and the loss in float64, as in the kernels; XLA fuses what it
// can, but reads X twice.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "xla/hlo/builder/xla_builder.h"

namespace linreg_ops {

// x [..., n, d], w [..., d + intercept, k] or [d + intercept], y and sample_weight likewise; an
// invalid (default) XlaOp where there is none. Shapes fit each other.
struct HloProblem {
  xla::XlaOp x, w, y, sample_weight;
  bool intercept = false;
};

struct HloLossGrad {
  xla::XlaOp loss, grad;  // of w's type
};
HloLossGrad LossAndGrad(const HloProblem& problem, bool loss_per_target);

struct HloRates {
  xla::XlaOp value;  // float64
  bool per_step;
};
struct HloDescent {
  xla::XlaOp w, losses;  // of w's type
};
absl::StatusOr<HloDescent> Descend(const HloProblem& problem, const HloRates& rates,
                                   xla::XlaOp momentum, std::int64_t num_steps);

}  // namespace linreg_ops
