// The fused pass over X: R = X·W − Y, the loss and Xᵀ·diag(s)·R from one read of every row, and,
// for a descent, the steps around it in the same launch. Accumulates in float32 (float64 for
// float64) over at most 480 rows a lane, in float64 beyond; the loss in float64.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/step.cuh"

namespace linreg_ops {
namespace cuda {

template <typename Pass>
__global__ void __launch_bounds__(kThreads, Pass::kBlocks)
    FusedKernel(const __grid_constant__ FusedArgs args) {
  using A = typename Pass::A;
  extern __shared__ __align__(128) unsigned char shared[];
  double* reduce = reinterpret_cast<double*>(shared + args.plan.sums_offset);
  const DescentArgs& descent = args.descent;
  const BlockState<A> own(args, shared);
  const bool has_own = descent.enabled && descent.every_block_updates;
  const bool alone = has_own && gridDim.x == 1;
  if (has_own) own.Begin(args);
  const std::int64_t passes = descent.last_pass - descent.first_pass;
  const int bias = args.intercept ? args.k : 0;
  Pass pass(args, shared);
  unsigned arrivals = 0;
  for (std::int64_t pass_number = 0; pass_number < passes; ++pass_number) {
    const std::int64_t step = descent.first_pass + pass_number;
    const bool want_grad =
        descent.enabled ? step < descent.num_steps : args.finish.grad_out != nullptr;
    const A* state = step > 0 ? static_cast<const A*>(descent.w_state) : nullptr;
    pass.LoadWeights([&](int i) {
      if (has_own) return own.w[i];
      // Past L1, where other blocks bring it up to date.
      return state != nullptr ? __ldcg(state + i) : LoadAs<A>(args.w, i, args.w_type);
    });
    // Two sets in turn: a fast block may write the next while a slow one still reads this.
    double* set = args.partials + (step & 1) * gridDim.x * args.partial_stride();
    double* partial = set + blockIdx.x / args.plan.team * args.partial_stride();
    pass.Run(want_grad, [&](int i, double total, bool first) {
      if (alone) {
        AddPartial(own.totals + i, total, first);
      } else if (args.narrow_grad && i >= bias && i < args.weights()) {
        reinterpret_cast<float*>(partial + bias)[i - bias] = static_cast<float>(total);
      } else {
        AddPartial(partial + i, total, first);
      }
    });
    if (!descent.enabled) break;

    if (gridDim.x > 1) GridBarrier(descent.barrier, &arrivals);
    const Partials totals{set, args.partial_stride(), gridDim.x, false};
    if (has_own) {
      own.Step(args, totals, step, reduce);
      continue;
    }
    if (blockIdx.x == 0) StoreStepLoss(args, set, step, reduce);
    if (!want_grad) continue;
    UpdateShare<A>(args, totals, step, reduce);
    GridBarrier(descent.barrier, &arrivals);
  }

  if (descent.enabled) {
    if (blockIdx.x != 0) return;
    if (descent.last_pass != descent.num_steps + 1) {
      if (has_own) own.End(args);
      return;
    }
    const A* state = descent.num_steps > 0 ? static_cast<const A*>(descent.w_state) : nullptr;
    for (std::int64_t i = threadIdx.x; i < args.weights(); i += blockDim.x) {
      const A w = has_own            ? own.w[i]
                  : state != nullptr ? __ldcg(state + i)
                                     : LoadAs<A>(args.w, i, args.w_type);
      StoreAs(descent.w_out, i, args.finish.loss_type, static_cast<double>(w));
    }
  } else if (gridDim.x == 1) {
    if (args.finish.grad_out) FinishGrad(args.finish, 0, args.weights(), reduce);
    if (args.finish.loss_out) FinishLoss(args.finish, reduce);
  }
}

}  // namespace cuda
}  // namespace linreg_ops
