// The fused pass for small d: a few lanes share a row.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/weights.cuh"

namespace linreg_ops {
namespace cuda {

// A row is read once, by `column_lanes` lanes of V columns each, for every group of K targets; the
// row stays in registers from the dot product to the gradient.
template <typename T, int K>
class RowsPass {
 public:
  using A = AccumulatorOf<T>;
  static constexpr int V = VectorWidth(Element<T>::kType, Path::kRows, K);
  static constexpr int R = RowsAtATime(Element<T>::kType, Path::kRows, K);

  __device__ RowsPass(const FusedArgs& args, const Weights<A, V>& weights, unsigned char* shared)
      : args_(args),
        reduce_(shared + args.plan.reduce_offset),
        lanes_(args.plan.column_lanes),
        span_(args.plan.column_lanes * args.plan.target_groups),
        row_(threadIdx.x / span_),
        target_(threadIdx.x / lanes_ % args.plan.target_groups * K),
        base_(static_cast<int>(threadIdx.x % lanes_) * (args.plan.vector_columns ? V : 1)),
        stride_(args.plan.vector_columns ? 1 : lanes_) {
#pragma unroll
    for (int t = 0; t < K; ++t) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int c = base_ + i * stride_;
        w_[t][i] = c < args.d ? weights.at(target_ + t, c) : A(0);
        grad_[t][i] = 0;
      }
      w_bias_[t] = args.intercept ? weights.bias(target_ + t) : A(0);
      loss_[t] = 0;
      bias_[t] = 0;
    }
  }

  __device__ void Tile(const TileView& tile, bool want_grad) {
    const T* x_tile = reinterpret_cast<const T*>(tile.x);
    const int rows_at_once = kThreads / span_;
    // The bound is the same for every lane, as the shuffles need. Unrolled it would spill.
#pragma unroll 1
    for (int base = 0; base < tile.rows; base += rows_at_once * R) {
      A x[R][V];
      A dot[R][K];
#pragma unroll
      for (int q = 0; q < R; ++q) {
        const int row = base + q * rows_at_once + row_;
        if (row < tile.rows) {
          LoadColumns(x_tile + row * args_.d, base_, stride_, args_.d, args_.wide_loads, x[q]);
        } else {
#pragma unroll
          for (int i = 0; i < V; ++i) x[q][i] = 0;
        }
#pragma unroll
        for (int t = 0; t < K; ++t) {
          dot[q][t] = 0;
#pragma unroll
          for (int i = 0; i < V; ++i) dot[q][t] += x[q][i] * w_[t][i];
        }
      }
#pragma unroll 1
      for (int mask = lanes_ / 2; mask > 0; mask /= 2) {
#pragma unroll
        for (int q = 0; q < R; ++q) {
#pragma unroll
          for (int t = 0; t < K; ++t) dot[q][t] += __shfl_xor_sync(0xffffffffu, dot[q][t], mask);
        }
      }
#pragma unroll
      for (int q = 0; q < R; ++q) {
        const int row = base + q * rows_at_once + row_;
        if (row >= tile.rows) continue;
        const A s = args_.ring.s.begin ? LoadAs<A>(tile.s, row, args_.y_type) : A(1);
#pragma unroll
        for (int t = 0; t < K; ++t) {
          if (target_ + t >= args_.k) continue;
          A r = dot[q][t] + w_bias_[t];
          if (args_.ring.y.begin) r -= LoadAs<A>(tile.y, row * args_.k + target_ + t, args_.y_type);
          const A weighted = s * r;
          loss_[t] += static_cast<double>(weighted) * static_cast<double>(r);
          if (!want_grad) continue;
          if (args_.intercept) bias_[t] += static_cast<double>(weighted);
#pragma unroll
          for (int i = 0; i < V; ++i) grad_[t][i] += weighted * x[q][i];
        }
      }
    }
  }

  // Adds this segment's gradient to the block's partial sums and starts afresh.
  __device__ void Flush(double* partial, bool first) {
#pragma unroll
    for (int t = 0; t < K; ++t) {
      double sum[V];
      SumOverGroups(grad_[t], span_, reinterpret_cast<A*>(reduce_), sum);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int c = base_ + i * stride_;
        if (threadIdx.x < span_ && c < args_.d && target_ + t < args_.k) {
          const int row = c + (args_.intercept ? 1 : 0);
          AddPartial(partial + std::int64_t{row} * args_.k + target_ + t, sum[i], first);
        }
        grad_[t][i] = 0;
      }
    }
  }

  __device__ void FlushLoss(double* partial, bool want_grad) {
#pragma unroll
    for (int t = 0; t < K; ++t) {
      double value[2] = {0.5 * loss_[t], bias_[t]};
      double sum[2];
      // Two at a time would need twice the shared memory: one after the other.
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        double one[1] = {value[i]}, total[1];
        SumOverGroups(one, span_, reinterpret_cast<double*>(reduce_), total);
        sum[i] = total[0];
      }
      if (threadIdx.x < span_ && threadIdx.x % lanes_ == 0 && target_ + t < args_.k) {
        partial[args_.weights() + target_ + t] = sum[0];
        if (args_.intercept && want_grad) partial[target_ + t] = sum[1];
      }
    }
  }

 private:
  const FusedArgs& args_;
  unsigned char* const reduce_;
  const int lanes_, span_, row_, target_, base_, stride_;
  A w_[K][V];
  A w_bias_[K];
  A grad_[K][V];
  double loss_[K];
  double bias_[K];
};

}  // namespace cuda
}  // namespace linreg_ops
