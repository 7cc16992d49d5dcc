// The kernels of a descent whose passes over X are launches of their own.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/step.cuh"

namespace linreg_ops {
namespace cuda {

// Behind a fused pass that left its partial sums: what the fused kernel does between two passes of
// its own, by as many blocks. The last pass, which made no gradient, stores the result. Each block
// counts the passes for itself, because a replayed graph's arguments never change.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    StepFromPartialsKernel(const __grid_constant__ FusedArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  double* reduce = reinterpret_cast<double*>(shared);
  const DescentArgs& descent = args.descent;
  const std::int64_t step = descent.passes_done[blockIdx.x];
  const Partials totals{args.partials, args.partial_stride(), args.plan.teams, false};
  __syncthreads();
  if (threadIdx.x == 0) descent.passes_done[blockIdx.x] = step + 1;
  if (descent.every_block_updates) {  // as this one, the only one, does
    A *const w = static_cast<A*>(descent.w_state), *const v = static_cast<A*>(descent.v_state);
    const double rate = step < descent.num_steps ? RateOf(descent, step) : 0.0;
    double* const losses = reduce + blockDim.x;
    StepFromTotals(args, totals, step, args.partial_stride(), losses, reduce,
                   [&](std::int64_t i, double grad) {
                     w[i] += NextV(v + i, descent.momentum, rate, grad, false);
                   });
    __syncthreads();
    StoreLossOfTargets(args, step, losses);
  } else {
    if (blockIdx.x == 0) StoreStepLoss(args, args.partials, step, reduce);
    if (step < descent.num_steps) UpdateShare<A>(args, totals, step, reduce);
  }
  if (step < descent.num_steps) return;
  const Share share(args.weights());
  for (std::int64_t i = share.first + threadIdx.x; i < share.last; i += blockDim.x) {
    const A w = static_cast<const A*>(descent.w_state)[i];
    StoreAs(descent.w_out, i, args.finish.loss_type, static_cast<double>(w));
  }
}

// A step whose loss and gradient other kernels left in `loss` and `grad`.
struct StepArgs {
  const void* w_in = nullptr;
  void* w_out = nullptr;
  DType type = DType::kFloat32;  // of w_in, w_out, loss and losses
  std::int64_t count = 0;
  std::int64_t num_steps = 0;
  double momentum = 0, rate = 0;
  const double* rates = nullptr;  // one per step; null: `rate` for all
  const void* loss = nullptr;
  const void* grad = nullptr;  // accumulators
  void* losses = nullptr;
  void* w_state = nullptr;
  void* v_state = nullptr;
  std::int64_t* steps_done = nullptr;  // of each block, as above
};

// The first state, which is the result too if there is no step.
template <typename A>
__global__ void __launch_bounds__(kThreads) BeginKernel(const __grid_constant__ StepArgs args) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < args.count;
       i += std::int64_t{gridDim.x} * kThreads) {
    const A w = LoadAs<A>(args.w_in, i, args.type);
    static_cast<A*>(args.w_state)[i] = w;
    static_cast<A*>(args.v_state)[i] = 0;
    StoreAs(args.w_out, i, args.type, static_cast<double>(w));
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads) StepKernel(const __grid_constant__ StepArgs args) {
  A* w = static_cast<A*>(args.w_state);
  A* v = static_cast<A*>(args.v_state);
  const std::int64_t step = args.steps_done[blockIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) args.steps_done[blockIdx.x] = step + 1;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    StoreAs(args.losses, step, args.type, LoadAs<double>(args.loss, 0, args.type));
  }
  const double rate = args.rates ? args.rates[step] : args.rate;
  const bool last = step + 1 == args.num_steps;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < args.count;
       i += std::int64_t{gridDim.x} * kThreads) {
    const double grad = static_cast<double>(static_cast<const A*>(args.grad)[i]);
    w[i] += NextV(v + i, args.momentum, rate, grad, false);
    if (last) StoreAs(args.w_out, i, args.type, static_cast<double>(w[i]));
  }
}

// A schedule travels as a kernel parameter: no copy from the host's memory, which the caller may
// free at once, and nothing that waits for the stream.
struct RateChunk {
  static constexpr int kSize = 256;
  double rate[kSize];
};

template <typename Unused>
__global__ void StoreRatesKernel(const __grid_constant__ RateChunk chunk, double* rates,
                                 int count) {
  if (threadIdx.x < count) rates[threadIdx.x] = chunk.rate[threadIdx.x];
}

}  // namespace cuda
}  // namespace linreg_ops
