// The fused pass over rows of a few elements: a lane has whole rows, so that nothing is exchanged
// between a row's load and its share of the gradient.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace linreg_ops {
namespace cuda {

// One target, D columns. As many rows as a vector has elements, E, are D vectors: a lane's tile,
// of which it has U in flight. A warp's loads lie D vectors apart: all of a cache line is used, by
// loads that follow each other.
template <typename T, int D>
class NarrowPass {
 public:
  using Number = T;
  using A = AccumulatorOf<T>;
  static constexpr int kBlocks = kNarrowBlocks;  // of a multiprocessor

  __device__ NarrowPass(const FusedArgs& args, unsigned char* shared)
      : args_(args), shared_(shared) {
    ClearSums();
  }

  // weight(i) is element i of W as the caller knows it, [d + intercept].
  template <typename Weight>
  __device__ void LoadWeights(const Weight& weight) {
    const int bias = args_.intercept ? 1 : 0;
    w_bias_ = bias != 0 ? weight(0) : A(0);
#pragma unroll 1
    for (int c = 0; c < D; ++c) {  // one place in the code that knows W's type
      const A value = weight(bias + c);
#pragma unroll
      for (int same = 0; same < D; ++same) w_[same] = same == c ? value : w_[same];
    }
  }

  // All of the block's rows. flush(i, total, first) adds to the block's partial sum number i, or
  // writes it for the first time.
  template <typename Flush>
  __device__ void Run(bool want_grad, const Flush& flush) {
    const std::int64_t stride = std::int64_t{args_.plan.blocks} * blockDim.x;
    std::int64_t tile = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    int left = args_.plan.segment;
    bool first = true;
    for (int i = 0; i < args_.plan.whole; ++i, tile += stride * U) {
      Tiles<true>(tile, stride);
      if (--left == 0) {
        FlushSums(want_grad, flush, first);
        first = false;
        left = args_.plan.segment;
      }
    }
    for (; tile * E < args_.n; tile += stride * U) Tiles<false>(tile, stride);
    FlushSums(want_grad, flush, first);
  }

 private:
  static constexpr int E = VectorWidth(Element<T>::kType);
  static constexpr int U = NarrowTiles(D);

  __device__ void ClearSums() {
    loss_ = bias_ = 0;
#pragma unroll
    for (int c = 0; c < D; ++c) grad_[c] = 0;
  }

  // Tiles tile, tile + stride, ...: U of them, all there if `Whole`.
  template <bool Whole>
  __device__ void Tiles(std::int64_t tile, std::int64_t stride) {
    Vector<T, E> x[U][D];
    const T* const from = static_cast<const T*>(args_.x);
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const std::int64_t row = (tile + u * stride) * E;
      const T* const at = from + row * D;
      if (args_.wide_loads && (Whole || row + E <= args_.n)) {
#pragma unroll
        for (int v = 0; v < D; ++v) x[u][v].Load(at + v * E);
      } else {
        const std::int64_t there = Whole ? E * D : (args_.n - row) * D;
#pragma unroll
        for (int v = 0; v < D; ++v) {
          const std::int64_t left = there - v * E;
          x[u][v].LoadEach(at + v * E, 0, static_cast<int>(left < 0 ? 0 : left < E ? left : E));
        }
      }
    }
    if (sizeof(T) != 2 || args_.y_type == Element<T>::kType) {
      Use<Whole, T>(tile, stride, x);
    } else {
      Use<Whole, float>(tile, stride, x);
    }
  }

  // E elements of Y or of the sample weights, from `first` on, or as many as there are.
  template <bool Whole, typename Y>
  __device__ void LoadTargets(const void* array, std::int64_t first, A otherwise, A (&to)[E]) const {
    if (array == nullptr) {
#pragma unroll
      for (int r = 0; r < E; ++r) to[r] = otherwise;
      return;
    }
    constexpr int kWidth = 16 / static_cast<int>(sizeof(Y));
    const Y* const from = static_cast<const Y*>(array) + first;
    const bool aligned = reinterpret_cast<std::uintptr_t>(array) % 16 == 0;
    if (aligned && (Whole || first + E <= args_.n)) {
#pragma unroll
      for (int v = 0; v < E / kWidth; ++v) {
        Vector<Y, kWidth> vector;
        vector.Load(from + v * kWidth);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) to[v * kWidth + i] = vector[i];
      }
    } else {
#pragma unroll
      for (int r = 0; r < E; ++r) {
        to[r] = Whole || first + r < args_.n ? Element<Y>::Load(__ldg(from + r)) : A(0);
      }
    }
  }

  template <bool Whole, typename Y>
  __device__ void Use(std::int64_t tile, std::int64_t stride, const Vector<T, E> (&x)[U][D]) {
    A y[U][E];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      LoadTargets<Whole, Y>(args_.y, (tile + u * stride) * E, A(0), y[u]);
    }
    A loss = 0, bias = 0;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      A tile_loss = 0, tile_bias = 0;
      A s[E];
      if (args_.s != nullptr) {
        LoadTargets<Whole, Y>(args_.s, (tile + u * stride) * E, A(1), s);
      }
#pragma unroll
      for (int r = 0; r < E; ++r) {
        A residual = w_bias_ - y[u][r];
#pragma unroll
        for (int c = 0; c < D; ++c) residual += x[u][(r * D + c) / E][(r * D + c) % E] * w_[c];
        if (!Whole && (tile + u * stride) * E + r >= args_.n) residual = 0;
        A weighted = residual;
        if (args_.s != nullptr) weighted *= s[r];
        tile_loss += weighted * residual;
        tile_bias += weighted;
#pragma unroll
        for (int c = 0; c < D; ++c) grad_[c] += x[u][(r * D + c) / E][(r * D + c) % E] * weighted;
      }
      loss += tile_loss;
      bias += tile_bias;
    }
    // In float32 over U tiles of E rows, at most 8 each; in float64 from there on.
    loss_ += static_cast<double>(loss);
    bias_ += static_cast<double>(bias);
  }

  // Adds the sums of all lanes to the block's partial sums, in an order that the shape fixes, and
  // starts afresh: within each warp, then over the warps in float64.
  template <typename Flush>
  __device__ void FlushSums(bool want_grad, const Flush& flush, bool first) {
    double* const sums = reinterpret_cast<double*>(shared_);
    const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
    const bool stores = threadIdx.x % 32 == 0;
    __syncthreads();
#pragma unroll
    for (int c = 0; c < D; ++c) {
      const A total = WarpSum(grad_[c]);
      if (stores) sums[c * warps + warp] = static_cast<double>(total);
    }
    const double bias = WarpSum(bias_), loss = WarpSum(loss_);
    if (stores) {
      sums[D * warps + warp] = bias;
      sums[(D + 1) * warps + warp] = 0.5 * loss;
    }
    ClearSums();
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    if (i >= D + 2) return;
    double total = 0;
    for (int w = 0; w < warps; ++w) total += sums[i * warps + w];
    const int bias_rows = args_.intercept ? 1 : 0;
    if (i < D) {
      if (want_grad) flush(bias_rows + i, total, first);
    } else if (i == D + 1) {
      flush(bias_rows + D, total, first);
    } else if (bias_rows != 0) {
      flush(0, total, first);
    }
  }

  template <typename Sum>
  __device__ static Sum WarpSum(Sum value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
    return value;
  }

  const FusedArgs& args_;
  unsigned char* const shared_;
  A w_[D], w_bias_ = 0, grad_[D];
  double loss_, bias_;
};

}  // namespace cuda
}  // namespace linreg_ops
