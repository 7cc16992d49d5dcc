// From shape and types to a route, tasks, tiles, workers and workspace.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {

// What a plan depends on.
struct Asked {
  std::int64_t n, d, k;
  std::int64_t x_size, y_size, c_size;  // bytes of an element; of the compute type
  std::int64_t lanes;                   // of the compute type in a virtual vector
  int threads;
  bool descent;
  bool plain;  // the kernels are scalar.cc's

  std::int64_t row_bytes() const {
    return d * x_size + k * y_size > 0 ? d * x_size + k * y_size : 1;
  }
};

// Which tasks there are depends on shape and types alone; `threads` bounds the workers, and a
// descent is worth more of them than one evaluation.
Plan MakePlan(const Data& data, int threads, bool descent, const Kernels& kernels);

// The planners of gemm_plan.cc.
void PlanGemmSlots(const Asked& asked, Plan* plan);
void PlanGemmRounds(const Asked& asked, Plan* plan);
bool TakesGemmSlots(const Asked& asked);

inline int TasksOf(const Plan& plan, int stage) {
  return plan.tasks[stage < 3 ? stage : 2 - stage % 2];
}

// Offsets of the parts of a workspace, one behind the other, each aligned to 64 bytes.
class Reserve {
 public:
  std::int64_t operator()(std::int64_t bytes) {
    const std::int64_t offset = bytes_;
    bytes_ += RoundUp(bytes, 64);
    return offset;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t bytes_ = 0;
};

}  // namespace cpu
}  // namespace linreg_ops
