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

// Where this block finds W between the passes of a launch: its own copy if every block updates all.
template <typename A>
__device__ inline A* StateOf(const FusedArgs& args, void* state) {
  return static_cast<A*>(state) +
         (args.descent.every_block_updates ? blockIdx.x * args.weights() : 0);
}

// Within a launch of several passes: ends with the W that this block reads up to date.
template <typename A>
__device__ inline void UpdateWeights(const FusedArgs& args, const Partials& partials,
                                     std::int64_t step, double* shared, unsigned* arrivals) {
  const DescentArgs& descent = args.descent;
  if (descent.every_block_updates) {
    Update(args, partials, step, 0, args.weights(), StateOf<A>(args, descent.w_state),
           StateOf<A>(args, descent.v_state), shared);
    __syncthreads();
    return;
  }
  UpdateShare<A>(args, partials, step, shared);
  GridBarrier(descent.barrier, arrivals);
}

}  // namespace cuda
}  // namespace linreg_ops
