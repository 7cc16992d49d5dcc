// The fused pass for wider rows: warps make the dot products, then each thread its own columns.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/weights.cuh"

namespace linreg_ops {
namespace cuda {

// Every warp makes the dot products of a few rows at a time (or, for wide rows, of its share of
// their columns), reading W once for those rows; then every thread adds its own columns' gradient
// over the tile's rows, with no sum across threads. X is read twice from shared memory, whose 128
// bytes a clock leave room: memory delivers 20.
template <typename T, int K>
class ColumnsPass {
 public:
  using A = AccumulatorOf<T>;
  static constexpr int V = VectorWidth(Element<T>::kType, Path::kColumns, K);
  static constexpr int R = RowsAtATime(Element<T>::kType, Path::kColumns, K);
  static constexpr int kVectors = ColumnVectors(Element<T>::kType, K);

  __device__ ColumnsPass(const FusedArgs& args, const Weights<A, V>& weights, unsigned char* shared)
      : args_(args),
        weights_(weights),
        dots_(reinterpret_cast<A*>(shared + args.plan.dots_offset)),
        residuals_(reinterpret_cast<A*>(shared + args.plan.residuals_offset)),
        reduce_(shared + args.plan.reduce_offset),
        lanes_(args.plan.column_lanes) {
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
#pragma unroll
      for (int t = 0; t < K; ++t) {
#pragma unroll
        for (int i = 0; i < V; ++i) grad_[j][t][i] = 0;
      }
    }
  }

  __device__ void Tile(const TileView& tile, bool want_grad) {
    Dots(tile);
    __syncthreads();
    Residuals(tile);
    if (!want_grad) return;
    __syncthreads();
    Gradient(tile);
  }

  __device__ void Flush(double* partial, bool first) {
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      if (j * lanes_ * V >= args_.d) break;
      const int base = Base(j, threadIdx.x % lanes_, lanes_);
#pragma unroll
      for (int t = 0; t < K; ++t) {
        double sum[V];
        SumOverGroups(grad_[j][t], lanes_, reinterpret_cast<A*>(reduce_), sum);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const int c = base + i * Stride(lanes_);
          if (threadIdx.x < lanes_ && c < args_.d && t < args_.k) {
            const int row = c + (args_.intercept ? 1 : 0);
            AddPartial(partial + std::int64_t{row} * args_.k + t, sum[i], first);
          }
          grad_[j][t][i] = 0;
        }
      }
    }
  }

  __device__ void FlushLoss(double* partial, bool want_grad) {
    double* reduce = reinterpret_cast<double*>(reduce_);
    double loss[1] = {0.5 * loss_}, bias[1] = {bias_}, loss_sum[1], bias_sum[1];
    SumOverGroups(loss, K, reduce, loss_sum);
    SumOverGroups(bias, K, reduce, bias_sum);
    const int target = threadIdx.x;
    if (target < K && target < args_.k) {
      partial[args_.weights() + target] = loss_sum[0];
      if (args_.intercept && want_grad) partial[target] = bias_sum[0];
    }
  }

 private:
  // The first of a thread's columns, with `lanes` threads side by side, in its vector number j.
  __device__ int Base(int j, int lane, int lanes) const {
    return args_.plan.vector_columns ? (j * lanes + lane) * V : j * lanes * V + lane;
  }
  __device__ int Stride(int lanes) const { return args_.plan.vector_columns ? 1 : lanes; }

  __device__ void Dots(const TileView& tile) {
    const T* x_tile = reinterpret_cast<const T*>(tile.x);
    const int warp = threadIdx.x / 32;
    const int column_warp = warp % args_.plan.dot_warps;
    const int lanes = 32 * args_.plan.dot_warps;
    const int lane = column_warp * 32 + threadIdx.x % 32;
    const int step = kWarps / args_.plan.dot_warps * R;
    for (int row = warp / args_.plan.dot_warps * R; row < tile.rows; row += step) {
      A dot[R * K];
#pragma unroll
      for (int i = 0; i < R * K; ++i) dot[i] = 0;
      for (int j = 0; Base(j, lane, lanes) < args_.d; ++j) {
        const int base = Base(j, lane, lanes);
        A x[R][V];
#pragma unroll
        for (int q = 0; q < R; ++q) {
          // A row past the tile's end: the last one again, and its sums are dropped.
          const int r = row + q < tile.rows ? row + q : tile.rows - 1;
          LoadColumns(x_tile + r * args_.d, base, Stride(lanes), args_.d, args_.wide_loads, x[q]);
        }
#pragma unroll
        for (int t = 0; t < K; ++t) {
          A w[V];
          weights_.Load(t, base, Stride(lanes), w);
#pragma unroll
          for (int q = 0; q < R; ++q) {
#pragma unroll
            for (int i = 0; i < V; ++i) dot[q * K + t] += x[q][i] * w[i];
          }
        }
      }
      SumOverWarp<R * K>(dot);
      constexpr int kLanesPerSum = 32 / (R * K);
      const int sum = threadIdx.x % 32 / kLanesPerSum;
      const int sum_row = row + sum / K;
      if (threadIdx.x % kLanesPerSum == 0 && sum_row < tile.rows) {
        dots_[(column_warp * args_.plan.rows_per_tile + sum_row) * K + sum % K] = dot[0];
      }
    }
  }

  __device__ void Residuals(const TileView& tile) {
    const int target = threadIdx.x % K;
    for (int i = threadIdx.x; i < tile.rows * K; i += kThreads) {
      const int row = i / K;
      A weighted = 0;
      if (target < args_.k) {
        A r = args_.intercept ? weights_.bias(target) : A(0);
        for (int c = 0; c < args_.plan.dot_warps; ++c) {
          r += dots_[c * args_.plan.rows_per_tile * K + i];
        }
        if (args_.ring.y.begin) r -= LoadAs<A>(tile.y, row * args_.k + target, args_.y_type);
        weighted = args_.ring.s.begin ? LoadAs<A>(tile.s, row, args_.y_type) * r : r;
        loss_ += static_cast<double>(weighted) * static_cast<double>(r);
        bias_ += static_cast<double>(weighted);
      }
      residuals_[i] = weighted;
    }
  }

  __device__ void Gradient(const TileView& tile) {
    const T* x_tile = reinterpret_cast<const T*>(tile.x);
    const int lane = threadIdx.x % lanes_;
    const int rows_at_once = kThreads / lanes_;
#pragma unroll 2
    for (int row = threadIdx.x / lanes_; row < tile.rows; row += rows_at_once) {
      struct alignas(K * sizeof(A) < 16 ? K * sizeof(A) : 16) Row {
        A r[K];
      };
      const Row residual = *reinterpret_cast<const Row*>(residuals_ + row * K);
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        const int base = Base(j, lane, lanes_);
        if (base < args_.d) {
          A x[V];
          LoadColumns(x_tile + row * args_.d, base, Stride(lanes_), args_.d, args_.wide_loads, x);
#pragma unroll
          for (int t = 0; t < K; ++t) {
#pragma unroll
            for (int i = 0; i < V; ++i) grad_[j][t][i] += residual.r[t] * x[i];
          }
        }
      }
    }
  }

  const FusedArgs& args_;
  const Weights<A, V> weights_;
  A* const dots_;       // [dot_warps][rows_per_tile][K]
  A* const residuals_;  // [rows_per_tile][K], times sample_weight
  unsigned char* const reduce_;
  const int lanes_;
  A grad_[kVectors][K][V];
  double loss_ = 0;  // of target threadIdx.x % K
  double bias_ = 0;
};

}  // namespace cuda
}  // namespace linreg_ops
