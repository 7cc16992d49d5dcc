// The fused pass over rows of a few elements: a lane has whole rows, so that nothing is exchanged
// between a row's load and its share of the gradient.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace linreg_ops {
namespace cuda {

// One target, D columns. As many rows as a vector has elements, E, are D vectors: a lane's tile, of
// which it works on U at a time; those of S iterations are under way to shared memory, as in the
// pass over wider rows. A warp's loads lie D vectors apart: all of a cache line is used, by loads
// that follow each other.
template <typename T, int D>
class NarrowPass {
 public:
  using Number = T;
  using A = AccumulatorOf<T>;
  static constexpr int kBlocks = 1;  // of a multiprocessor

  __device__ NarrowPass(const FusedArgs& args, unsigned char* shared)
      : args_(args), shared_(shared), ring_(SharedAddress(shared) + threadIdx.x * kLaneBytes) {
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
    // What the ring holds whole stays there: later passes find no copy left to start.
    if (started_ == 0 || args_.plan.iterations > S) {
      started_ = 0;
      slot_in_ = 0;
#pragma unroll 1
      for (int s = 0; s < S; ++s) Start(tile, stride);
    }
    Targets coming;
    LoadY(tile, stride, coming);
    int left = args_.plan.segment, slot = 0;
    bool first = true;
    const auto iterate = [&](auto plain) {
      AwaitCopiesBut<S - 1>();
      const Targets targets = coming;
      LoadY(tile + stride * U, stride, coming);
      Use<decltype(plain)::value>(slot, tile, stride, targets);
      Start(tile, stride);  // the slot's next tiles
      slot = NextSlot(slot);
      tile += stride * U;
      if (--left == 0) {
        FlushSums(want_grad, flush, first);
        first = false;
        left = args_.plan.segment;
      }
    };
    // Two loops: at a branch within one, the compiler waits for the loads of Y under way.
    std::int64_t i = 0;
    if (args_.s == nullptr) {
      for (; i < args_.plan.whole; ++i) iterate(std::true_type());
    }
    for (; i < args_.plan.iterations; ++i) iterate(std::false_type());
    FlushSums(want_grad, flush, first);
  }

 private:
  static constexpr int E = VectorWidth(Element<T>::kType);
  static constexpr int U = NarrowTiles(D), S = NarrowStages(D);
  static constexpr int kSlotBytes = U * D * 16, kLaneBytes = NarrowRingBytes(D);
  // As they came from memory: to convert them would wait for them.
  struct Targets {
    std::uint32_t y[U][E], s[U][E];  // of 16 bits, two to a word
  };

  __device__ static int NextSlot(int slot) {
    return slot == (S - 1) * kSlotBytes ? 0 : slot + kSlotBytes;
  }

  __device__ void ClearSums() {
    loss_ = bias_ = 0;
#pragma unroll
    for (int c = 0; c < D; ++c) grad_[c] = 0;
  }

  // Starts the copies of the next iteration that has none under way, if `tile` and what follows it
  // are those of the oldest. Beyond the last one the group is empty.
  __device__ void Start(std::int64_t tile, std::int64_t stride) {
    const std::int64_t current = started_ < S ? 0 : started_ - S;  // iteration of `tile`
    tile += (started_ - current) * stride * U;
    const T* const x = static_cast<const T*>(args_.x);
    if (started_ < args_.plan.whole && args_.wide_loads) {
#pragma unroll
      for (int u = 0; u < U; ++u) {
        CopyTile(x + (tile + u * stride) * (E * D), ring_ + slot_in_ + u * D * 16,
                 std::make_integer_sequence<int, D>());
      }
    } else if (started_ < args_.plan.iterations) {
#pragma unroll 1
      for (int u = 0; u < U; ++u) CopyElements(u, (tile + u * stride) * E);
    }
    CommitCopies();
    ++started_;
    slot_in_ = NextSlot(slot_in_);
  }
  template <int... Number>
  __device__ static void CopyTile(const T* from, std::uint32_t to,
                                  std::integer_sequence<int, Number...>) {
    (CopyAsync<16, Number * 16>(to, from + Number * E, true), ...);
  }
  // Where X is not aligned for vectors, or ends: as many rows as there are, and zeros.
  __device__ void CopyElements(int u, std::int64_t row) {
    T* to = reinterpret_cast<T*>(shared_ + threadIdx.x * kLaneBytes + slot_in_) + u * E * D;
    const T* from = static_cast<const T*>(args_.x) + row * D;
    const std::int64_t rows = args_.n - row;
    const int there = rows >= E ? E * D : rows <= 0 ? 0 : static_cast<int>(rows) * D;
#pragma unroll 1
    for (int i = 0; i < E * D; ++i) to[i] = i < there ? from[i] : T(0);
  }

  // Y and the sample weights of an iteration's rows, or of as many as there are.
  __device__ void LoadY(std::int64_t tile, std::int64_t stride, Targets& to) const {
    if (sizeof(T) != 2 || args_.y_type == Element<T>::kType) {
      LoadYAs<T>(tile, stride, to);
    } else {
      LoadYAs<float>(tile, stride, to);
    }
  }
  template <typename Y>
  __device__ void LoadYAs(std::int64_t tile, std::int64_t stride, Targets& to) const {
#pragma unroll
    for (int u = 0; u < U; ++u) {
      LoadTargets<Y>(args_.y, (tile + u * stride) * E, to.y[u]);
      if (args_.s != nullptr) LoadTargets<Y>(args_.s, (tile + u * stride) * E, to.s[u]);
    }
  }

  // E elements from `first` on, or as many as there are.
  template <typename Y>
  __device__ void LoadTargets(const void* array, std::int64_t first, std::uint32_t (&to)[E]) const {
    constexpr int kWidth = 16 / static_cast<int>(sizeof(Y));
    const Y* const from = static_cast<const Y*>(array) + first;
    const bool wide = reinterpret_cast<std::uintptr_t>(array) % 16 == 0 && first + E <= args_.n;
#pragma unroll
    for (int v = 0; v < E / kWidth; ++v) {
      Vector<Y, kWidth> vector;
      if (array == nullptr) {
        vector.Clear();
      } else if (wide) {
        vector.Load(from + v * kWidth);
      } else {
        const std::int64_t left = args_.n - first - v * kWidth;
        vector.LoadEach(from + v * kWidth, 0, left < kWidth ? static_cast<int>(left) : kWidth);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) to[v * 4 + i] = vector.word[i];
    }
  }
  __device__ void Convert(const std::uint32_t (&from)[E], A (&to)[E]) const {
    if (sizeof(T) == 2 && args_.y_type == Element<T>::kType) {
#pragma unroll
      for (int r = 0; r < E; ++r) to[r] = ElementOf<T>(from[r / 2], r % 2);
    } else {
#pragma unroll
      for (int r = 0; r < E; ++r) to[r] = __uint_as_float(from[r]);
    }
  }

  template <int... Number>
  __device__ static void LoadTile(Vector<T, E> (&x)[D], std::uint32_t from,
                                  std::integer_sequence<int, Number...>) {
    (x[Number].template LoadShared<Number * 16>(from), ...);
  }

  // `Plain`: all of the rows are there, and have no weights. To ask for each row takes a third of
  // the instructions of a single column.
  template <bool Plain>
  __device__ void Use(int slot, std::int64_t tile, std::int64_t stride, const Targets& targets) {
    A loss = 0, bias = 0;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      Vector<T, E> x[D];
      LoadTile(x, ring_ + slot + u * D * 16, std::make_integer_sequence<int, D>());
      A y[E], s[E];
      Convert(targets.y[u], y);
      if (!Plain && args_.s != nullptr) Convert(targets.s[u], s);
      const std::int64_t rows = args_.n - (tile + u * stride) * E;
      A tile_loss = 0, tile_bias = 0;
#pragma unroll
      for (int r = 0; r < E; ++r) {
        A residual = w_bias_ - y[r];
#pragma unroll
        for (int c = 0; c < D; ++c) residual += x[(r * D + c) / E][(r * D + c) % E] * w_[c];
        if (!Plain && r >= rows) residual = 0;
        const A weighted = !Plain && args_.s != nullptr ? s[r] * residual : residual;
        tile_loss += weighted * residual;
        tile_bias += weighted;
#pragma unroll
        for (int c = 0; c < D; ++c) grad_[c] += x[(r * D + c) / E][(r * D + c) % E] * weighted;
      }
      loss += tile_loss;
      bias += tile_bias;
    }
    // In float32 over U tiles of E rows, at most 4 and 8; in float64 from there on.
    loss_ += static_cast<double>(loss);
    bias_ += static_cast<double>(bias);
  }

  // Adds the sums of all lanes to the block's partial sums, in an order that the shape fixes, and
  // starts afresh: within each warp, then over the warps in float64.
  template <typename Flush>
  __device__ void FlushSums(bool want_grad, const Flush& flush, bool first) {
    double* const sums = reinterpret_cast<double*>(shared_ + args_.plan.sums_offset);
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
    const int i = static_cast<int>(threadIdx.x), bias_rows = args_.intercept ? 1 : 0;
    double total = 0;
    if (i < D + 2) {
      for (int w = 0; w < warps; ++w) total += sums[i * warps + w];
    }
    if (i < D) {
      if (want_grad) flush(bias_rows + i, total, first);
    } else if (i == D + 1) {
      flush(bias_rows + D, total, first);
    } else if (i == D && bias_rows != 0) {
      flush(0, total, first);
    }
    __syncthreads();  // a single block reads them next
  }

  const FusedArgs& args_;
  unsigned char* const shared_;
  const std::uint32_t ring_;  // the lane's slots
  std::int64_t started_ = 0;  // iterations
  int slot_in_ = 0;           // of the next one to start, in bytes
  A w_[D], w_bias_ = 0, grad_[D];
  double loss_, bias_;
};

}  // namespace cuda
}  // namespace linreg_ops
