// The cost model of many_targets.h.
#include "kernels/cpu/plan.h"

namespace linreg_ops {
namespace cpu {

Plan PlanManyTargets(const Shape& shape, DType, DType, int) {
  Plan plan = {};
  plan.stages = 1;
  plan.tasks[0] = 1;
  plan.workers = 1;
  plan.workspace_bytes = shape.weight_rows() * shape.k * 8;
  return plan;
}

}  // namespace cpu
}  // namespace linreg_ops
