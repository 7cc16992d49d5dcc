// The path for more than 16 targets, and for rows too wide for a block: chunks of rows, each of
// half the L2 cache, take two products, R = X·W − Y and Xᵀ·diag(s)·R. The second finds the chunk in
// L2, and only the chunk's residual is ever stored. The products are the caller's GEMM, or the
// plain kernels here.
//
// Chosen over clusters that share a row through distributed shared memory, by argument: neither has
// been measured on a GPU. A chunk's second read costs L2 bandwidth, not DRAM's, as long as the
// chunk stays there; the same code serves every architecture and any number of targets; and up to
// 16384 float32 columns a row fits one block anyway.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"

namespace linreg_ops {
namespace cuda {

struct ChunkArgs {
  const void* x = nullptr;  // of the chunk
  const void* y = nullptr;
  const void* s = nullptr;
  const void* w = nullptr;
  DType w_type = DType::kFloat32;
  DType y_type = DType::kFloat32;
  DType narrow_type = DType::kFloat32;  // of `narrow_residuals`
  std::int64_t rows = 0, d = 0, k = 0;
  bool intercept = false;
  bool first = false;                // this chunk writes the partial sums, later ones add
  void* residuals = nullptr;         // [rows, k], accumulators: X·W, then s·R
  void* narrow_residuals = nullptr;  // the same in a 16-bit type, for a GEMM of that type; or null
  double* grad_partials = nullptr;   // [row_splits][d, k]
  double* loss_partials = nullptr;   // [residual blocks][bias k, loss k]
};

constexpr int kWarps = kThreads / 32;
constexpr int kChunkTargets = 4;
constexpr int kChunkRows = 4;
static_assert(kWarps * kChunkRows * kChunkTargets * 8 <= kReduceBytes, "the dot products' sums");

// X·W for kChunkRows rows and kChunkTargets targets a block; all threads share each row's columns.
template <typename T>
__global__ void __launch_bounds__(kThreads) DotsKernel(const __grid_constant__ ChunkArgs args) {
  using A = AccumulatorOf<T>;
  constexpr int kSums = kChunkRows * kChunkTargets;
  extern __shared__ __align__(128) unsigned char shared[];
  A* warp_sums = reinterpret_cast<A*>(shared);  // [kWarps][kSums]
  const T* x = static_cast<const T*>(args.x);
  const std::int64_t bias = args.intercept ? 1 : 0;
  const std::int64_t row_groups = (args.rows + kChunkRows - 1) / kChunkRows;
  const std::int64_t target_groups = (args.k + kChunkTargets - 1) / kChunkTargets;
  for (std::int64_t group = blockIdx.x; group < row_groups * target_groups; group += gridDim.x) {
    // Neighbouring blocks take the same rows, so that their later reads hit L2.
    const std::int64_t row = group / target_groups * kChunkRows;
    const std::int64_t target = group % target_groups * kChunkTargets;
    A sum[kSums];
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[i] = 0;
    for (std::int64_t c = threadIdx.x; c < args.d; c += kThreads) {
      A w[kChunkTargets];
#pragma unroll
      for (int t = 0; t < kChunkTargets; ++t) {
        w[t] = target + t < args.k
                   ? LoadAs<A>(args.w, (c + bias) * args.k + target + t, args.w_type)
                   : A(0);
      }
#pragma unroll
      for (int q = 0; q < kChunkRows; ++q) {
        if (row + q >= args.rows) continue;
        const A value = Element<T>::Load(x[(row + q) * args.d + c]);
#pragma unroll
        for (int t = 0; t < kChunkTargets; ++t) sum[q * kChunkTargets + t] += value * w[t];
      }
    }
    SumOverWarp<kSums>(sum);
    if (threadIdx.x % 2 == 0) warp_sums[threadIdx.x / 2] = sum[0];
    __syncthreads();
    if (threadIdx.x < kSums) {
      A total = 0;
      for (int warp = 0; warp < kWarps; ++warp) total += warp_sums[warp * kSums + threadIdx.x];
      const std::int64_t q = threadIdx.x / kChunkTargets, t = threadIdx.x % kChunkTargets;
      if (row + q < args.rows && target + t < args.k) {
        static_cast<A*>(args.residuals)[(row + q) * args.k + target + t] = total;
      }
    }
    __syncthreads();
  }
}

// From X·W to s·(X·W + bias − Y), in place, with the chunk's part of the loss and of the
// intercept's gradient. A thread keeps to one target, so its sums need no atomics.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    ResidualsKernel(const __grid_constant__ ChunkArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  double* reduce = reinterpret_cast<double*>(shared);
  A* residuals = static_cast<A*>(args.residuals);
  double* partial = args.loss_partials + blockIdx.x * 2 * args.k;
  int lanes = 1;
  while (lanes < kThreads && lanes < args.k) lanes *= 2;
  const int rows_at_once = kThreads / lanes;
  for (std::int64_t base = 0; base < args.k; base += lanes) {
    const std::int64_t target = base + threadIdx.x % lanes;
    double loss[1] = {0}, bias_grad[1] = {0}, total[1];
    if (target < args.k) {
      const A bias = args.intercept ? LoadAs<A>(args.w, target, args.w_type) : A(0);
      for (std::int64_t row = std::int64_t{blockIdx.x} * rows_at_once + threadIdx.x / lanes;
           row < args.rows; row += std::int64_t{gridDim.x} * rows_at_once) {
        const std::int64_t i = row * args.k + target;
        A r = residuals[i] + bias;
        if (args.y) r -= LoadAs<A>(args.y, i, args.y_type);
        const A weighted = args.s ? LoadAs<A>(args.s, row, args.y_type) * r : r;
        loss[0] += static_cast<double>(weighted) * static_cast<double>(r);
        bias_grad[0] += static_cast<double>(weighted);
        residuals[i] = weighted;
        if (args.narrow_residuals) {
          StoreAs(args.narrow_residuals, i, args.narrow_type, static_cast<double>(weighted));
        }
      }
    }
    const bool mine = threadIdx.x < lanes && target < args.k;
    SumOverGroups(bias_grad, lanes, reduce, total);
    if (mine) AddPartial(partial + target, total[0], args.first);
    SumOverGroups(loss, lanes, reduce, total);
    if (mine) AddPartial(partial + args.k + target, 0.5 * total[0], args.first);
  }
}

// Xᵀ·R: a thread has one column and kChunkTargets targets, blockIdx.z one of the chunk's row
// splits. Four blocks a multiprocessor: left to itself, nvcc 13 for sm_90 aims at five, with 48
// registers, and spills.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4) GradKernel(const __grid_constant__ ChunkArgs args) {
  using A = AccumulatorOf<T>;
  const T* x = static_cast<const T*>(args.x);
  const A* residuals = static_cast<const A*>(args.residuals);
  const std::int64_t first_row = args.rows * blockIdx.z / gridDim.z;
  const std::int64_t last_row = args.rows * (blockIdx.z + 1) / gridDim.z;
  double* partial = args.grad_partials + blockIdx.z * args.d * args.k;
  for (std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; c < args.d;
       c += std::int64_t{gridDim.x} * kThreads) {
    for (std::int64_t target = std::int64_t{blockIdx.y} * kChunkTargets; target < args.k;
         target += std::int64_t{gridDim.y} * kChunkTargets) {
      double total[kChunkTargets] = {};
      for (std::int64_t segment = first_row; segment < last_row; segment += kSegmentRows) {
        const std::int64_t end =
            segment + kSegmentRows < last_row ? segment + kSegmentRows : last_row;
        A sum[kChunkTargets] = {};
#pragma unroll 4
        for (std::int64_t row = segment; row < end; ++row) {
          const A value = Element<T>::Load(x[row * args.d + c]);
#pragma unroll
          for (int t = 0; t < kChunkTargets; ++t) {
            if (target + t < args.k) sum[t] += value * residuals[row * args.k + target + t];
          }
        }
#pragma unroll
        for (int t = 0; t < kChunkTargets; ++t) total[t] += static_cast<double>(sum[t]);
      }
#pragma unroll
      for (int t = 0; t < kChunkTargets; ++t) {
        if (target + t < args.k) {
          AddPartial(partial + c * args.k + target + t, total[t], args.first);
        }
      }
    }
  }
}

// 16-bit rows as float32, for a GEMM with float32 weights.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    WidenKernel(const T* from, float* to, std::int64_t count) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * kThreads) {
    to[i] = Element<T>::Load(from[i]);
  }
}

// Totals over the blocks: 32 gradient entries a block, and the loss in the last one. Without the
// least number of blocks, nvcc 13 holds it to 32 registers for 8.0, and spills one.
template <typename Unused>
__global__ void __launch_bounds__(kThreads, 1)
    FinishKernel(const __grid_constant__ FinishArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  double* reduce = reinterpret_cast<double*>(shared);
  constexpr std::int64_t kPerBlock = 32;
  const std::int64_t weights = (args.d + (args.intercept ? 1 : 0)) * args.k;
  if (blockIdx.x + 1 == gridDim.x) {
    if (args.loss_out) FinishLoss(args, reduce);
    return;
  }
  for (std::int64_t first = blockIdx.x * kPerBlock; first < weights;
       first += (gridDim.x - 1) * kPerBlock) {
    const std::int64_t last = first + kPerBlock < weights ? first + kPerBlock : weights;
    FinishGrad(args, first, last, reduce);
  }
}

}  // namespace cuda
}  // namespace linreg_ops
