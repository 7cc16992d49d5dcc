// From the blocks' partial sums to the results: the gradient, the loss, a step of a descent.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/weights.cuh"

namespace linreg_ops {
namespace cuda {

// Totals of the gradient: outputs [first, last) of [d + intercept, k].
__device__ inline void FinishGrad(const FinishArgs& args, std::int64_t first, std::int64_t last,
                                  double* shared) {
  const std::int64_t bias = args.intercept ? args.k : 0;
  const auto store = [&](std::int64_t at) {
    return [&args, at](std::int64_t i, double total) {
      StoreAs(args.grad_out, at + i, args.grad_type, total);
    };
  };
  if (first < bias) ForEachTotal(args.bias, first, last < bias ? last : bias, shared, store(0));
  if (last > bias) {
    ForEachTotal(args.grad, first > bias ? first - bias : 0, last - bias, shared, store(bias));
  }
}

__device__ inline void FinishLoss(const FinishArgs& args, double* shared) {
  // One thread sees a target; their sum is in the order of the threads.
  double sum[1] = {0};
  ForEachTotal(args.loss, 0, args.k, shared, [&](std::int64_t i, double total) {
    if (args.loss_per_target) StoreAs(args.loss_out, i, args.loss_type, total);
    sum[0] += total;
  });
  if (args.loss_per_target) return;
  double total[1];
  SumOverGroups(sum, 1, shared, total);
  if (threadIdx.x == 0) StoreAs(args.loss_out, 0, args.loss_type, total[0]);
}

// One step of the descent from the partial sums of all blocks; ends with this block's W up to date.
template <typename A, int V>
__device__ inline void UpdateWeights(const FusedArgs& args, const Partials& partials,
                                     std::int64_t step, const Weights<A, V>& weights,
                                     double* shared, unsigned* arrivals) {
  const DescentArgs& descent = args.descent;
  const std::int64_t count = args.weights();
  const double rate = descent.rates ? descent.rates[step] : descent.rate;
  A* w_state = static_cast<A*>(descent.w_state);
  A* v_state = static_cast<A*>(descent.v_state);
  const auto next_v = [&](A* v, double grad) {
    const double old = step > 0 ? static_cast<double>(*v) : 0.0;
    *v = static_cast<A>(descent.momentum * old - rate * grad);
    return *v;
  };
  if (descent.every_block_updates) {
    v_state += blockIdx.x * count;
    ForEachTotal(partials, 0, count, shared, [&](std::int64_t i, double grad) {
      weights.element(i, args.k, args.intercept) += next_v(v_state + i, grad);
    });
    __syncthreads();
    return;
  }
  ForEachTotal(partials, count * blockIdx.x / gridDim.x, count * (blockIdx.x + 1) / gridDim.x,
               shared, [&](std::int64_t i, double grad) {
                 const A w = step > 0 ? w_state[i] : LoadAs<A>(args.w, i, args.w_type);
                 w_state[i] = w + next_v(v_state + i, grad);
               });
  GridBarrier(descent.barrier, arrivals);
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    weights.element(i, args.k, args.intercept) = __ldcg(w_state + i);
  }
  __syncthreads();
}

}  // namespace cuda
}  // namespace linreg_ops
