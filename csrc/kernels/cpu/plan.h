// The cost model: from shape and types to tasks, tiles, workers and workspace.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {

// Which tasks there are depends on shape and types alone; `threads` bounds the workers, and a
// descent is worth more of them than one evaluation.
Plan PlanFewTargets(const Shape& shape, DType x_type, DType w_type, int threads, bool descent);
Plan PlanManyTargets(const Shape& shape, DType x_type, DType w_type, int threads);

inline Plan MakePlan(const Data& data, int threads, bool descent) {
  if (data.shape.k <= kFewTargets) {
    return PlanFewTargets(data.shape, data.x_type, data.w_type, threads, descent);
  }
  return PlanManyTargets(data.shape, data.x_type, data.w_type, threads);
}

inline int TasksOf(const Plan& plan, int stage) {
  return plan.tasks[stage < 3 ? stage : 2 - stage % 2];
}

}  // namespace cpu
}  // namespace linreg_ops
