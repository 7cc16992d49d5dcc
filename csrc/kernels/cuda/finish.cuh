// From the blocks' partial sums to the results.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"

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

}  // namespace cuda
}  // namespace linreg_ops
