// Sums in a fixed order: within a block, over the blocks' partial sums, and the barrier between.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"

namespace linreg_ops {
namespace cuda {

// Bytes of shared memory, for sums of one number of each of kThreads threads.
constexpr int kReduceBytes = kThreads * 8;

// Adds into the block's partial sums, or writes them for the first time.
__device__ inline void AddPartial(double* partial, double value, bool first) {
  *partial = first ? value : *partial + value;
}

// Sums value[i] over the threads of equal threadIdx.x % span (a power of two), for threads below
// `span`: shuffles within a warp, then the warps in order, in float64. `shared` holds V numbers of
// each thread.
// Every thread of the block calls it, after a __syncthreads() since the last use of `shared`.
template <int V, typename A>
__device__ inline void SumOverGroups(A (&value)[V], int span, A* shared, double (&sum)[V]) {
  for (int mask = 16; mask >= span; mask >>= 1) {
#pragma unroll
    for (int i = 0; i < V; ++i) value[i] += __shfl_xor_sync(0xffffffffu, value[i], mask);
  }
  const int width = span > 32 ? span : 32;
  const int t = threadIdx.x, threads = blockDim.x;
  if (width == threads) {
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = value[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) shared[i * threads + t] = value[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < V; ++i) {
    sum[i] = 0;
    if (t < width) {
      for (int g = t; g < threads; g += width) sum[i] += shared[i * threads + g];
    }
  }
  __syncthreads();
}

// N (a power of two) values of every lane, summed over the warp: lane l gets value l / (32 / N) in
// value[0]. N − 1 + log2(32 / N) shuffles, where a butterfly of each value would take 5 · N.
template <int N, int Mask = 16, typename A>
__device__ inline void SumOverWarp(A* value) {
  if constexpr (Mask > 0) {
    if constexpr (N > 1) {
      const bool upper = threadIdx.x & Mask;
#pragma unroll
      for (int i = 0; i < N / 2; ++i) {
        const A keep = upper ? value[i + N / 2] : value[i];
        const A give = upper ? value[i] : value[i + N / 2];
        value[i] = keep + __shfl_xor_sync(0xffffffffu, give, Mask);
      }
    } else {
      value[0] += __shfl_xor_sync(0xffffffffu, value[0], Mask);
    }
    SumOverWarp<(N > 1 ? N / 2 : 1), Mask / 2>(value);
  }
}

// In every lane of a whole warp.
template <typename Sum>
__device__ inline Sum WarpSum(Sum value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}

// One row of numbers for each of `count` blocks, to be summed over the blocks.
struct Partials {
  const void* base = nullptr;
  std::int64_t stride = 0;
  std::int64_t count = 0;
  bool narrow = false;  // float32 rather than float64

  __device__ double At(std::int64_t block, std::int64_t i) const {
    // Past L1, which is not coherent with what other blocks wrote during this launch.
    if (narrow) return __ldcg(static_cast<const float*>(base) + block * stride + i);
    return __ldcg(static_cast<const double*>(base) + block * stride + i);
  }
};

// How many of `count` numbers the threads of a block sum side by side.
__device__ inline int SpanOf(std::int64_t count) {
  const int threads = blockDim.x;
  int span = 1;
  while (span < threads && span < count) span *= 2;
  return span;
}

// Calls use(i, total of number i) for i in [first, last), each by one thread. The whole block
// calls. `span` and the number of threads are all that the order of the additions depends on.
template <typename Use>
__device__ inline void ForEachTotal(const Partials& partials, std::int64_t first, std::int64_t last,
                                    int span, double* shared, const Use& use) {
  const int threads = blockDim.x;
  const int lane = threadIdx.x % span;
  const int groups = threads / span;
  for (std::int64_t base = first; base < last; base += span) {
    const std::int64_t i = base + lane;
    double value[1] = {0};
    if (i < last) {
#pragma unroll 8
      for (std::int64_t b = threadIdx.x / span; b < partials.count; b += groups) {
        value[0] += partials.At(b, i);
      }
    }
    double total[1];
    SumOverGroups(value, span, shared, total);
    if (threadIdx.x < span && i < last) use(i, total[0]);
  }
}
template <typename Use>
__device__ inline void ForEachTotal(const Partials& partials, std::int64_t first, std::int64_t last,
                                    double* shared, const Use& use) {
  ForEachTotal(partials, first, last, SpanOf(last - first), shared, use);
}

// All blocks of a cooperative launch; `counter` starts at zero and `arrivals` counts up alike in
// every block. Writes before it are seen after it by reads that bypass L1.
__device__ inline void GridBarrier(unsigned* counter, unsigned* arrivals) {
  __syncthreads();
  *arrivals += gridDim.x;
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
    // The difference is right across wrap-around.
    while (static_cast<int>(*static_cast<volatile unsigned*>(counter) - *arrivals) < 0) {
      __nanosleep(32);
    }
    __threadfence();
  }
  __syncthreads();
}

}  // namespace cuda
}  // namespace linreg_ops
