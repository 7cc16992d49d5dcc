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
  __syncthreads();
  if (threadIdx.x == 0) descent.passes_done[blockIdx.x] = step + 1;
  if (blockIdx.x == 0) StoreStepLoss(args, args.partials, step, reduce);
  if (step < descent.num_steps) {
    const Partials totals{args.partials, args.partial_stride(), args.plan.blocks, false};
    UpdateShare<A>(args, totals, step, reduce);
    return;
  }
  const Share share(args.weights());
  for (std::int64_t i = share.first + threadIdx.x; i < share.last; i += kThreads) {
    const A w = static_cast<const A*>(descent.w_state)[i];
    StoreAs(descent.w_out, i, args.finish.loss_type, static_cast<double>(w));
  }
}

// A step whose gradient another kernel left in `grad`.
struct StepArgs {
  const void* w_in = nullptr;
  void* w_out = nullptr;
  DType type = DType::kFloat32;  // of w_in and w_out
  std::int64_t count = 0;
  bool begin = false;  // no step: the first state, from w_in
  bool end = false;    // stores the result too
  double momentum = 0, rate = 0;
  const void* grad = nullptr;  // accumulators
  void* w_state = nullptr;
  void* v_state = nullptr;
};

template <typename A>
__global__ void __launch_bounds__(kThreads) StepKernel(const __grid_constant__ StepArgs args) {
  A* w = static_cast<A*>(args.w_state);
  A* v = static_cast<A*>(args.v_state);
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < args.count;
       i += std::int64_t{gridDim.x} * kThreads) {
    if (args.begin) {
      w[i] = LoadAs<A>(args.w_in, i, args.type);
      v[i] = 0;
    } else {
      const double grad = static_cast<double>(static_cast<const A*>(args.grad)[i]);
      w[i] += NextV(v + i, args.momentum, args.rate, grad, false);
    }
    if (args.end) StoreAs(args.w_out, i, args.type, static_cast<double>(w[i]));
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
