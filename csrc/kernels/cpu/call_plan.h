// What Call::Make leaves for Call::Run.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel.h"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cpu {

struct CallPlan {
  Call::Kind kind;
  Data sizes;  // what the call was made for; its arrays are null or not, and never read
  const char* isa;
  const Kernels* kernels;
  const Engine* engine;  // null: sums over nothing
  Plan plan;

  // Bytes into the workspace, or kCallers: the caller's array serves.
  static constexpr std::int64_t kCallers = -1;
  std::int64_t loss = kCallers;  // double [k]
  std::int64_t w = kCallers;     // compute type, as the rest
  std::int64_t grad = kCallers;
  std::int64_t velocity = kCallers;
  std::int64_t engine_workspace = kCallers;
  std::int64_t workspace_bytes = 0;

  std::int64_t weights() const { return sizes.shape.weight_rows() * sizes.shape.k; }
  std::int64_t compute_size() const { return sizes.x_type == DType::kFloat64 ? 8 : 4; }
};

// A descent, and its first evaluation, from checked arguments; see descent.cc.
Status RunDescent(const CallPlan& call, const Data& data, const Descent& descent,
                  const Threads& threads, char* workspace);

}  // namespace cpu
}  // namespace linreg_ops
