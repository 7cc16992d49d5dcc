// The fused pass over X: R = X·W − Y, the loss and Xᵀ·diag(s)·R from one read of every row, and,
// for a descent, the steps around it in the same launch. Accumulates in float32 (float64 for
// float64) within a segment of some hundred rows a thread, in float64 beyond; the loss in
// float64.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/pass_columns.cuh"
#include "kernels/cuda/pass_rows.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/step.cuh"
#include "kernels/cuda/weights.cuh"

namespace linreg_ops {
namespace cuda {

template <typename T, Path P, int K>
__global__ void __launch_bounds__(kThreads, BlocksPerMultiprocessor(Element<T>::kType, P, K))
    FusedKernel(const __grid_constant__ FusedArgs args) {
  using A = AccumulatorOf<T>;
  using Pass = std::conditional_t<P == Path::kRows, RowsPass<T, K>, ColumnsPass<T, K>>;
  extern __shared__ __align__(128) unsigned char shared[];
  const Weights<A, Pass::V> weights{reinterpret_cast<A*>(shared + args.plan.weights_offset), args.d,
                                    K * args.plan.target_groups, args.plan.vector_columns};
  double* reduce = reinterpret_cast<double*>(shared + args.plan.reduce_offset);
  const DescentArgs& descent = args.descent;
  const std::int64_t passes = descent.last_pass - descent.first_pass;
  Ring ring(args.ring, passes, shared, shared + args.plan.stages_offset);
  ring.Start();

  for (int i = threadIdx.x; i < weights.targets * args.d; i += kThreads) {
    weights.at(i / args.d, i % args.d) = 0;
  }
  if (threadIdx.x < weights.targets) weights.bias(threadIdx.x) = 0;
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < args.weights(); i += kThreads) {
    weights.element(i, args.k, args.intercept) = descent.first_pass > 0
                                                     ? static_cast<const A*>(descent.w_state)[i]
                                                     : LoadAs<A>(args.w, i, args.w_type);
  }
  __syncthreads();

  unsigned arrivals = 0;
  for (std::int64_t pass_number = 0; pass_number < passes; ++pass_number) {
    const std::int64_t step = descent.first_pass + pass_number;
    const bool want_grad =
        descent.enabled ? step < descent.num_steps : args.finish.grad_out != nullptr;
    // Two sets in turn: a fast block may write the next while a slow one still reads this.
    double* set = args.partials + (step & 1) * gridDim.x * args.partial_stride();
    double* partial = set + blockIdx.x * args.partial_stride();
    Pass pass(args, weights, shared);
    bool first = true;
    std::int64_t left = args.plan.segment_tiles;
    for (std::int64_t i = 0; i < ring.tiles(); ++i) {
      pass.Tile(ring.Await(pass_number, i), want_grad);
      __syncthreads();
      ring.Refill(pass_number, i);
      if (--left == 0 && want_grad && i + 1 < ring.tiles()) {
        pass.Flush(partial, first);
        first = false;
        left = args.plan.segment_tiles;
      }
    }
    if (want_grad) pass.Flush(partial, first);
    pass.FlushLoss(partial, want_grad);
    if (!descent.enabled) break;

    if (gridDim.x > 1) {
      GridBarrier(descent.barrier, &arrivals);
    } else {
      __syncthreads();
    }
    const Partials totals{set, args.partial_stride(), gridDim.x, false};
    if (blockIdx.x == 0) StoreStepLoss(args, set, step, reduce);
    if (want_grad) UpdateWeights(args, totals, step, weights, reduce, &arrivals);
  }

  if (descent.enabled) {
    if (blockIdx.x != 0) return;
    const bool done = descent.last_pass == descent.num_steps + 1;
    for (std::int64_t i = threadIdx.x; i < args.weights(); i += kThreads) {
      const A w = weights.element(i, args.k, args.intercept);
      if (done) {
        StoreAs(descent.w_out, i, args.finish.loss_type, static_cast<double>(w));
      } else {
        static_cast<A*>(descent.w_state)[i] = w;
      }
    }
  } else if (gridDim.x == 1) {
    __syncthreads();
    if (args.finish.grad_out) FinishGrad(args.finish, 0, args.weights(), reduce);
    if (args.finish.loss_out) FinishLoss(args.finish, reduce);
  }
}

}  // namespace cuda
}  // namespace linreg_ops
