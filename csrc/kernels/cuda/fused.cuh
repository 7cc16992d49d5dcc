// The fused pass over X: R = X·W − Y, the loss and Xᵀ·diag(s)·R from one read of every row, and,
// for a descent, the steps around it in the same launch. Accumulates in float32 (float64 for
// float64) within a segment of some hundred rows a thread, in float64 beyond; the loss in
// float64.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/ring.cuh"

namespace linreg_ops {
namespace cuda {

// Where the totals go: sums over `grad`, `bias` (the intercept's row) and `loss`.
struct FinishArgs {
  Partials grad, bias, loss;
  std::int64_t d = 0, k = 0;
  DType loss_type = DType::kFloat32, grad_type = DType::kFloat32;
  bool intercept = false;
  bool loss_per_target = false;
  void* loss_out = nullptr;
  void* grad_out = nullptr;
};

struct DescentArgs {
  bool enabled = false;
  std::int64_t first_pass = 0, last_pass = 1;  // [first, last) of num_steps + 1
  std::int64_t num_steps = 0;
  double momentum = 0, rate = 0;
  const double* rates = nullptr;  // one per step; null: `rate` for all
  void* w_state = nullptr;        // accumulators, [d + intercept, k]
  void* v_state = nullptr;        // likewise; one for each block if every_block_updates
  bool every_block_updates = false;
  unsigned* barrier = nullptr;
  void* w_out = nullptr;
  void* losses = nullptr;
};

struct FusedArgs {
  FusedPlan plan;
  RingArgs ring;
  const void* w = nullptr;
  DType w_type = DType::kFloat32;
  DType y_type = DType::kFloat32;  // of sample_weight too
  int d = 0, k = 0;
  bool intercept = false;
  bool wide_loads = false;     // rows are aligned for loads of plan.vector elements
  double* partials = nullptr;  // [blocks][bias k, grad d·k, loss k]; for a descent twice that
  FinishArgs finish;           // the single block of a small problem finishes it
  DescentArgs descent;

  __host__ __device__ std::int64_t weights() const {
    return (std::int64_t{d} + (intercept ? 1 : 0)) * k;
  }
  __host__ __device__ std::int64_t partial_stride() const { return weights() + k; }
};

// Adds into the block's partial sums, or writes them for the first time.
__device__ inline void AddPartial(double* partial, double value, bool first) {
  *partial = first ? value : *partial + value;
}

// A thread's V columns: `stride` apart from `base`.
template <typename T, int V>
__device__ inline void LoadColumns(const T* row, int base, int stride, int d, bool wide,
                                   AccumulatorOf<T> (&x)[V]) {
  if (wide) {
    if (base < d) {
      LoadVector<V>(row + base, x);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) x[i] = 0;
    }
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = base + i * stride;
      x[i] = c < d ? Element<T>::Load(row[c]) : AccumulatorOf<T>(0);
    }
  }
}

// Weights in shared memory: for each target its row of d, in the order in which the lanes of a warp
// read 16 bytes each without bank conflicts; the intercept's behind them.
template <typename A, int V>
struct Weights {
  static constexpr int kPerLoad = 16 / sizeof(A);
  static constexpr int kLoads = V > kPerLoad ? V / kPerLoad : 1;
  A* const base;
  const int d, targets;
  const bool vector_columns;

  __device__ A& bias(int target) const { return base[targets * d + target]; }
  __device__ A& at(int target, int column) const {
    if (kLoads == 1 || !vector_columns) return base[target * d + column];
    const int vector = column / V, i = column % V;
    return base[((target * kLoads + i / kPerLoad) * (d / V) + vector) * kPerLoad + i % kPerLoad];
  }
  // Row `e / k`, target `e % k` of the array the caller knows.
  __device__ A& element(std::int64_t e, int k, bool intercept) const {
    const int row = static_cast<int>(e / k), target = static_cast<int>(e % k);
    if (!intercept) return at(target, row);
    return row == 0 ? bias(target) : at(target, row - 1);
  }
  // A thread's V columns, as LoadColumns has them; base_column < d.
  __device__ void Load(int target, int base_column, int stride, A (&w)[V]) const {
    if (vector_columns) {
#pragma unroll
      for (int h = 0; h < kLoads; ++h) {
        A part[kPerLoad];
        LoadVector<kPerLoad>(base + ((target * kLoads + h) * (d / V) + base_column / V) * kPerLoad,
                             part);
#pragma unroll
        for (int i = 0; i < kPerLoad; ++i) w[h * kPerLoad + i] = part[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int c = base_column + i * stride;
        w[i] = c < d ? base[target * d + c] : A(0);
      }
    }
  }
};

template <typename T, Path P, int K>
class Pass;

// A row is read once, by `column_lanes` lanes of V columns each, for every group of K targets; the
// row stays in registers from the dot product to the gradient.
template <typename T, int K>
class Pass<T, Path::kRows, K> {
 public:
  using A = AccumulatorOf<T>;
  static constexpr int V = VectorWidth(Element<T>::kType, Path::kRows, K);
  static constexpr int R = RowsAtATime(Element<T>::kType, Path::kRows, K);

  __device__ Pass(const FusedArgs& args, const Weights<A, V>& weights, unsigned char* shared)
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

// Every warp makes the dot products of a few rows at a time (or, for wide rows, of its share of
// their columns), reading W once for those rows; then every thread adds its own columns' gradient
// over the tile's rows, with no sum across threads. X is read twice from shared memory, whose 128
// bytes a clock leave room: memory delivers 20.
template <typename T, int K>
class Pass<T, Path::kColumns, K> {
 public:
  using A = AccumulatorOf<T>;
  static constexpr int V = VectorWidth(Element<T>::kType, Path::kColumns, K);
  static constexpr int R = RowsAtATime(Element<T>::kType, Path::kColumns, K);
  static constexpr int kVectors = ColumnVectors(Element<T>::kType, K);

  __device__ Pass(const FusedArgs& args, const Weights<A, V>& weights, unsigned char* shared)
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

template <typename T, Path P, int K>
__global__ void __launch_bounds__(kThreads, BlocksPerMultiprocessor(Element<T>::kType, P, K))
    FusedKernel(const __grid_constant__ FusedArgs args) {
  using A = AccumulatorOf<T>;
  using ThisPass = Pass<T, P, K>;
  extern __shared__ __align__(128) unsigned char shared[];
  const Weights<A, ThisPass::V> weights{reinterpret_cast<A*>(shared + args.plan.weights_offset),
                                        args.d, K * args.plan.target_groups,
                                        args.plan.vector_columns};
  double* reduce = reinterpret_cast<double*>(shared + args.plan.reduce_offset);
  const DescentArgs& descent = args.descent;
  const std::int64_t passes = descent.last_pass - descent.first_pass;
  Ring ring(args.ring, passes, shared, shared + args.plan.stages_offset);
  ring.Start();

  for (int i = threadIdx.x; i < weights.targets * args.d; i += kThreads) {
    weights.at(i / args.d, i % args.d) = 0;
  }
  if (threadIdx.x < weights.targets) weights.bias(threadIdx.x) = 0;
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < args.weights(); i += kThreads) {
    weights.element(i, args.k, args.intercept) = descent.first_pass > 0
                                                     ? static_cast<const A*>(descent.w_state)[i]
                                                     : LoadAs<A>(args.w, i, args.w_type);
  }
  __syncthreads();

  unsigned arrivals = 0;
  for (std::int64_t pass_number = 0; pass_number < passes; ++pass_number) {
    const std::int64_t step = descent.first_pass + pass_number;
    const bool want_grad =
        descent.enabled ? step < descent.num_steps : args.finish.grad_out != nullptr;
    // Two sets in turn: a fast block may write the next while a slow one still reads this.
    double* set = args.partials + (step & 1) * gridDim.x * args.partial_stride();
    double* partial = set + blockIdx.x * args.partial_stride();
    ThisPass pass(args, weights, shared);
    bool first = true;
    std::int64_t left = args.plan.segment_tiles;
    for (std::int64_t i = 0; i < ring.tiles(); ++i) {
      pass.Tile(ring.Await(pass_number, i), want_grad);
      __syncthreads();
      ring.Refill(pass_number, i);
      if (--left == 0 && want_grad && i + 1 < ring.tiles()) {
        pass.Flush(partial, first);
        first = false;
        left = args.plan.segment_tiles;
      }
    }
    if (want_grad) pass.Flush(partial, first);
    pass.FlushLoss(partial, want_grad);
    if (!descent.enabled) break;

    if (gridDim.x > 1) {
      GridBarrier(descent.barrier, &arrivals);
    } else {
      __syncthreads();
    }
    const Partials totals{set, args.partial_stride(), gridDim.x, false};
    if (blockIdx.x == 0) {
      FinishArgs finish = args.finish;
      finish.loss = {set + args.weights(), args.partial_stride(), gridDim.x, false};
      finish.loss_out = static_cast<char*>(descent.losses) + step * ElementBytes(finish.loss_type);
      FinishLoss(finish, reduce);
    }
    if (want_grad) UpdateWeights(args, totals, step, weights, reduce, &arrivals);
  }

  if (descent.enabled) {
    if (blockIdx.x != 0) return;
    const bool done = descent.last_pass == descent.num_steps + 1;
    for (std::int64_t i = threadIdx.x; i < args.weights(); i += kThreads) {
      const A w = weights.element(i, args.k, args.intercept);
      if (done) {
        StoreAs(descent.w_out, i, args.finish.loss_type, static_cast<double>(w));
      } else {
        static_cast<A*>(descent.w_state)[i] = w;
      }
    }
  } else if (gridDim.x == 1) {
    __syncthreads();
    if (args.finish.grad_out) FinishGrad(args.finish, 0, args.weights(), reduce);
    if (args.finish.loss_out) FinishLoss(args.finish, reduce);
  }
}

}  // namespace cuda
}  // namespace linreg_ops
