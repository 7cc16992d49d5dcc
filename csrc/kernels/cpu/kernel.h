// The internal interface between the drivers (one call, one descent) and the kernels of one
// instruction set. Plain data only: a unit built with instruction-set flags must use no inline
// function that another unit might link to.
//
// One evaluation of loss and gradient is prepare(), then `stages` stages of independent tasks; a
// stage starts when all tasks of the one before are done. Which tasks there are, and so every
// bit of the result, depends on the shape and the types alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cpu/many_targets_plan.h"
#include "kernels/l2_loss_grad.h"  // DType

namespace linreg_ops {
namespace cpu {

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

// One evaluation. C, the compute type, is double where X is float64 and float otherwise.
struct Problem {
  std::int64_t n, d, k;
  bool intercept;
  const void* x;              // [n, d], x_type
  const void* w;              // [d + intercept, k], C
  const void* y;              // [n, k], w_type; null: zeros
  const void* sample_weight;  // [n], w_type; null: ones
  double* loss;               // [k]: Σᵢ sᵢ rᵢₜ², without the ½; always written
  void* grad;                 // [d + intercept, k], C; null: not wanted
  // Asked within tasks that take long; true: the rest of the task may be left out. Null: never.
  bool (*cancelled)(void* context);
  void* cancelled_context;
};

// What to do in which order, a function of shape and types; only `workers` and the size of the
// workspace depend on the number of threads.
struct Plan {
  static constexpr int kMaxTasks = 32767;  // per stage
  int stages;
  std::int32_t tasks[3];         // stages beyond the third repeat the second and third in turn
  int workers;                   // bodies worth running at a time, 1 ... threads
  std::int64_t workspace_bytes;  // 64-byte aligned

  // Few targets (k ≤ kFewTargets): see few_targets.h. Offsets are bytes into the workspace.
  std::int64_t slot_rows;         // rows of one task of the first stage
  std::int64_t tile_rows;         // rows whose second use must hit the cache
  std::int64_t columns_per_task;  // columns of one task of the reduction
  std::int64_t weights_offset;    // w transposed and padded: C [k][padded_d]
  std::int64_t padded_d;
  std::int64_t partials_offset;  // double [slots][partial_stride]
  std::int64_t partial_stride;
  std::int64_t scratch_offset;  // [workers][scratch_bytes]
  std::int64_t scratch_bytes;
  // A descent on a small X reads a copy of it: C [rows / lanes][d][lanes], zeros behind the last
  // row; −1: none.
  std::int64_t packed_offset = -1;

  ManyTargetsPlan many;
};

constexpr std::int64_t kFewTargets = 8;

struct Kernel {
  void (*prepare)(const Problem&, const Plan&, char* workspace);
  // `worker` is in [0, workers): no two tasks run at the same time with the same one.
  void (*run)(const Problem&, const Plan&, char* workspace, int stage, int task, int worker);
};

// One row per pair of types: what an instruction set has to offer.
struct Kernels {
  DType x_type;
  DType w_type;
  Kernel few;                                                      // 1 ≤ k ≤ kFewTargets
  Kernel many;                                                     // k > kFewTargets
  void (*widen)(const void* from, void* to, std::int64_t count);   // w_type -> C
  void (*narrow)(const void* from, void* to, std::int64_t count);  // C -> w_type
  // Makes the copy of X that the plan asks for, before the first evaluation.
  void (*pack)(const Problem&, const Plan&, char* workspace);
};

constexpr int kNumKernels = 6;
using KernelTable = Kernels[kNumKernels];
extern const KernelTable& kAvx512Kernels;
extern const KernelTable& kAvx2Kernels;
extern const KernelTable& kNeonKernels;
extern const KernelTable& kScalarKernels;

}  // namespace cpu
}  // namespace linreg_ops
