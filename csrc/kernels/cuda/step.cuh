// A step of a descent from the blocks' partial sums: v ← momentum·v − rate·g, w ← w + v. Every way
// of descending takes it from here, so that all have the same bits.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/reduce.cuh"

namespace linreg_ops {
namespace cuda {

// One weight's v after the step. The multiply-add is explicit: left to the compiler, either product
// may be the one that is not rounded.
template <typename A>
__device__ inline A NextV(A* v, double momentum, double rate, double grad, bool first) {
  const double old = first ? 0.0 : static_cast<double>(*v);
  *v = static_cast<A>(fma(momentum, old, -(rate * grad)));
  return *v;
}

__device__ inline double RateOf(const DescentArgs& descent, std::int64_t step) {
  return descent.rates ? descent.rates[step] : descent.rate;
}

// losses[step], by one block.
__device__ inline void StoreStepLoss(const FusedArgs& args, const double* set, std::int64_t step,
                                     double* shared) {
  FinishArgs finish = args.finish;
  finish.loss = {set + args.weights(), args.partial_stride(), args.plan.teams, false};
  finish.loss_out = static_cast<char*>(args.descent.losses) + step * ElementBytes(finish.loss_type);
  FinishLoss(finish, shared);
}

// The weights that this block brings up to date where the blocks divide them.
struct Share {
  std::int64_t first, last;
  __device__ explicit Share(std::int64_t count)
      : first(count * blockIdx.x / gridDim.x), last(count * (blockIdx.x + 1) / gridDim.x) {}
};

// Weights [first, last) of the state that starts at w_state and v_state.
template <typename A>
__device__ inline void Update(const FusedArgs& args, const Partials& partials, std::int64_t step,
                              std::int64_t first, std::int64_t last, A* w_state, A* v_state,
                              double* shared) {
  const DescentArgs& descent = args.descent;
  const double rate = RateOf(descent, step);
  ForEachTotal(partials, first, last, shared, [&](std::int64_t i, double grad) {
    const A w = step > 0 ? w_state[i] : LoadAs<A>(args.w, i, args.w_type);
    w_state[i] = w + NextV(v_state + i, descent.momentum, rate, grad, step == 0);
  });
}

template <typename A>
__device__ inline void UpdateShare(const FusedArgs& args, const Partials& partials,
                                   std::int64_t step, double* shared) {
  const Share share(args.weights());
  Update(args, partials, step, share.first, share.last, static_cast<A*>(args.descent.w_state),
         static_cast<A*>(args.descent.v_state), shared);
}

// A step by a block that brings all weights up to date: update(i, total of the gradient's element
// i), unless it was the last pass, which made none. `last` is args.weights(), or beyond it by k
// where the block stores the step's loss as well; those totals go by way of `losses`.
template <typename UpdateOne>
__device__ inline void StepFromTotals(const FusedArgs& args, const Partials& partials,
                                      std::int64_t step, std::int64_t last, double* losses,
                                      double* shared, const UpdateOne& update) {
  const std::int64_t weights = args.weights();
  const auto use = [&](std::int64_t i, double total) {
    if (i < weights) {
      update(i, total);
    } else {
      losses[i - weights] = total;
    }
  };
  const std::int64_t first = step < args.descent.num_steps ? 0 : weights;
  // One span for all blocks and passes, so that all add alike.
  ForEachTotal(partials, first, last, SpanOf(weights + args.k), shared, use);
}

// losses[step] from the targets' losses, at most as many as a warp has lanes, by the first warp.
__device__ inline void StoreLossOfTargets(const FusedArgs& args, std::int64_t step,
                                          const double* losses) {
  if (threadIdx.x >= 32) return;
  const double loss = WarpSum(threadIdx.x < args.k ? losses[threadIdx.x] : 0.0);
  if (threadIdx.x == 0) StoreAs(args.descent.losses, step, args.finish.loss_type, loss);
}

// W and v of a block that brings all of them up to date, and the totals of a pass: in its shared
// memory, where a step of a small problem is over before global memory has answered once.
template <typename A>
struct BlockState {
  double* const totals;  // [d + intercept, k] of the gradient, [k] of the loss
  A *const w, *const v;

  __device__ BlockState(const FusedArgs& args, unsigned char* shared)
      : totals(reinterpret_cast<double*>(shared + args.descent.state_offset)),
        w(reinterpret_cast<A*>(totals + args.partial_stride())),
        v(w + args.weights()) {}

  // As the caller has it, or where the last launch stopped. The whole block calls.
  __device__ void Begin(const FusedArgs& args) const {
    const DescentArgs& descent = args.descent;
    for (std::int64_t i = threadIdx.x; i < args.weights(); i += blockDim.x) {
      const bool goes_on = descent.first_pass > 0;
      w[i] =
          goes_on ? static_cast<const A*>(descent.w_state)[i] : LoadAs<A>(args.w, i, args.w_type);
      v[i] = goes_on ? static_cast<const A*>(descent.v_state)[i] : A(0);
    }
    __syncthreads();
  }

  __device__ void Step(const FusedArgs& args, const Partials& partials, std::int64_t step,
                       double* shared) const {
    const DescentArgs& descent = args.descent;
    const std::int64_t weights = args.weights();
    const double rate = step < descent.num_steps ? RateOf(descent, step) : 0.0;
    const auto update = [&](std::int64_t i, double grad) {
      w[i] += NextV(v + i, descent.momentum, rate, grad, false);
    };
    double* const losses = totals + weights;
    if (gridDim.x > 1) {
      StepFromTotals(args, partials, step, blockIdx.x == 0 ? weights + args.k : weights, losses,
                     shared, update);
    } else if (step < descent.num_steps) {
      for (std::int64_t i = threadIdx.x; i < weights; i += blockDim.x) update(i, totals[i]);
    }
    __syncthreads();
    if (blockIdx.x == 0) StoreLossOfTargets(args, step, losses);
  }

  // For the next launch, by block 0: the others have the same.
  __device__ void End(const FusedArgs& args) const {
    for (std::int64_t i = threadIdx.x; i < args.weights(); i += blockDim.x) {
      static_cast<A*>(args.descent.w_state)[i] = w[i];
      static_cast<A*>(args.descent.v_state)[i] = v[i];
    }
  }
};

}  // namespace cuda
}  // namespace linreg_ops
