// What the kernels of the fused pass and of its totals are told.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"

namespace linreg_ops {
namespace cuda {

// Where the totals go: sums over `grad`, `bias` (the intercept's row) and `loss`.
struct FinishArgs {
  Partials grad, bias, loss;
  std::int64_t d = 0, k = 0;
  DType loss_type = DType::kFloat32, grad_type = DType::kFloat32;
  bool intercept = false;
  bool loss_per_target = false;
  void* loss_out = nullptr;
  void* grad_out = nullptr;
};

struct DescentArgs {
  bool enabled = false;                        // by the fused kernel, in one launch
  std::int64_t first_pass = 0, last_pass = 1;  // [first, last) of num_steps + 1
  std::int64_t num_steps = 0;
  double momentum = 0, rate = 0;
  const double* rates = nullptr;  // one per step; null: `rate` for all
  void* w_state = nullptr;        // accumulators, [d + intercept, k]
  void* v_state = nullptr;        // likewise
  // Every block repeats the whole update, of a W and v of its own in its shared memory: what a
  // launch leaves in w_state and v_state is block 0's.
  bool every_block_updates = false;
  // Bytes from the start of the block's shared memory to that state, and to X's rows, which stay
  // there from the first pass on; 0: none of them stays.
  std::int64_t state_offset = 0, kept_x_offset = 0;
  unsigned* barrier = nullptr;
  std::int64_t* passes_done = nullptr;  // not in one launch: of each block of the step's kernel
  void* w_out = nullptr;
  void* losses = nullptr;
};

struct FusedArgs {
  FusedPlan plan;
  const void* x = nullptr;
  const void* y = nullptr;  // null: zeros
  const void* s = nullptr;  // null: ones
  const void* w = nullptr;
  std::int64_t n = 0;
  DType w_type = DType::kFloat32;
  DType y_type = DType::kFloat32;  // of sample_weight too
  int d = 0, k = 0;
  bool intercept = false;
  bool wide_loads = false;     // X is aligned for loads of whole vectors
  double* partials = nullptr;  // [teams][bias k, grad d·k, loss k]; for a descent twice that
  // Each block's gradient is float32 numbers, and takes half its place in `partials`: for rows so
  // wide that one group has a block's, once, to write all of float64 and read it again takes 3% as
  // long as to read 1 GiB of X.
  bool narrow_grad = false;
  // [teams][2][team][rows · targets, twice for float64], zeros, if team > 1.
  unsigned long long* team_words = nullptr;
  FinishArgs finish;  // the single block of a small problem finishes it
  DescentArgs descent;

  __host__ __device__ std::int64_t weights() const {
    return (std::int64_t{d} + (intercept ? 1 : 0)) * k;
  }
  __host__ __device__ std::int64_t partial_stride() const { return weights() + k; }
};

}  // namespace cuda
}  // namespace linreg_ops
