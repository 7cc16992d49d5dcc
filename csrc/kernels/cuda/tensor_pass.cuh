// The pass over X for several targets, by tensor cores: tiles of 16 rows are copied to shared
// memory, stages ahead, and both products read them there.
#pragma once

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tensor_cores.cuh"

namespace linreg_ops {
namespace cuda {

// plan.tensor.warps warps, a group, divide a tile's columns, and a block's groups take tiles in
// turn. In step i a group computes its warps' parts of X·W of tile i; after its one barrier, their
// sums, which are the residuals; then the gradient's share of tile i - 1, whose residuals the same
// barrier has shown to all its warps. The next copy goes where nobody has read since the barrier.
//
// `Tile` has the arithmetic. Its sums are float32 over at most kSegmentRows tiles, each tile one
// addition; then in float64. Numbers that bfloat16 pieces do not hold, above all infinities and
// NaN, show in the loss, in the gradient's sums or in W, and have the block's rows computed again
// without tensor cores: Run returns whether there were none. Numbers of X and residuals below
// 2^-110 lose digits unseen, which are below 2^-134.
template <typename Tile>
class TensorPass {
 public:
  __device__ TensorPass(const FusedArgs& args, unsigned char* shared)
      : args_(args),
        plan_(args.plan.tensor),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % 32),
        threads_(plan_.warps * 32),
        group_(static_cast<int>(threadIdx.x) / threads_),
        thread_(static_cast<int>(threadIdx.x) % threads_),
        ring_(shared + group_ * plan_.group_bytes),
        parts_(ring_ + plan_.stages * plan_.slot_bytes),
        residuals_(parts_ + 2 * plan_.warps * kPart),
        aligned_(
            (reinterpret_cast<std::uintptr_t>(args.y) | reinterpret_cast<std::uintptr_t>(args.s)) %
                16 ==
            0),
        narrow_y_(args.y_type != DType::kFloat32),
        target_(thread_ % (kTargets / 2) * 2) {}

  __device__ bool Run() {
    LoadWeights();
    const std::int64_t first = (std::int64_t{blockIdx.x} * args_.plan.groups + group_) * kRows;
    bool first_flush = true;
    // As often in every group, of which the first has as many tiles as any.
    for (std::int64_t row = first; row - group_ * kRows < args_.n || first_flush;) {
      const int stride = static_cast<int>(gridDim.x) * args_.plan.groups * kRows;
      ClearRing();
      const std::int64_t left = row < args_.n ? (args_.n - 1 - row) / stride + 1 : 0;
      constexpr int kMost = static_cast<int>(kSegmentRows);
      Segment(row, stride, left < kMost ? static_cast<int>(left) : kMost);
      Flush(first_flush);
      first_flush = false;
      row += std::int64_t{kMost} * stride;
    }
    return AllOfBlock(exact_);
  }

 private:
  using T = typename Tile::Number;
  using R = typename Tile::R;
  static constexpr int kRows = kTensorRows, kTargets = Tile::kTargets;
  static constexpr int kPart = kRows * kTargets * 4;  // bytes
  static constexpr int kResiduals = 3 * R::kMatrix;
  // To wait for several at a time takes registers that the largest tile has not left.
  static constexpr int kRowsAtOnce = sizeof(Tile) <= 320 ? 2 : 1;

  __device__ unsigned char* OwnColumns(unsigned char* slot) const {
    return slot + thread_ / 32 * Tile::kColumns * static_cast<int>(sizeof(T));
  }

  // By way of shared memory: there is one place in the code that knows W's type.
  __device__ void LoadWeights() {
    float* const staged = reinterpret_cast<float*>(shared_);
    const int k = args_.k, bias = args_.intercept ? k : 0, count = args_.d * k;
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      staged[i] = LoadAs<float>(args_.w, bias + i, args_.w_type);
      exact_ = exact_ && IsSplit(staged[i]);
    }
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const bool there = bias != 0 && target_ + t < k;
      w_bias_[t] = there ? LoadAs<float>(args_.w, target_ + t, args_.w_type) : 0.0f;
    }
    __syncthreads();
    const int first = thread_ / 32 * Tile::kColumns;
    tile_.LoadWeights(lane_, [&](int c, int target) {
      const int column = first + c;
      return column < args_.d && target < k ? staged[column * k + target] : 0.0f;
    });
    __syncthreads();
  }

  // Columns beyond the last stay zero, which no copy reaches.
  __device__ void ClearRing() {
    if (args_.d < plan_.warps * Tile::kColumns) {
      for (int i = thread_ * 16; i < plan_.stages * plan_.slot_bytes; i += threads_ * 16) {
        *reinterpret_cast<uint4*>(ring_ + i) = make_uint4(0, 0, 0, 0);
      }
    }
    tile_.ClearSums();
    __syncthreads();
  }

  __device__ void GroupBarrier() const {
    if (plan_.warps == 1) {
      __syncwarp();
    } else {  // 0 is the block's
      asm volatile("bar.sync %0, %1;" ::"r"(group_ + 1), "r"(threads_) : "memory");
    }
  }

  // Until at most that many of the thread's groups of copies are under way.
  __device__ static void AwaitCopies(int younger) {
    if (younger == 0) {
      AwaitCopiesBut<0>();
    } else if (younger == 1) {
      AwaitCopiesBut<1>();
    } else if (younger == 2) {
      AwaitCopiesBut<2>();
    } else {
      static_assert(kMostTensorStages <= 6, "what is awaited");
      AwaitCopiesBut<3>();
    }
  }

  // The tile that starts with `row`, its Y and sample weights; zeros for rows beyond X. The rows
  // are one piece of global memory, in shared memory they are `pitch` apart.
  __device__ void CopyTile(unsigned char* slot, std::int64_t row) const {
    const int rows = RowsFrom(row);
    const std::uint32_t row_bytes = args_.d * static_cast<std::uint32_t>(sizeof(T));
    const std::uint32_t pad = plan_.pitch - row_bytes, chunks = row_bytes / 16;
    const std::uint32_t inverse = plan_.inverse, to = SharedAddress(slot);
    const char* const from = static_cast<const char*>(args_.x) + row * row_bytes;
    std::uint32_t i = NotHoisted(thread_);
#pragma unroll 4
    for (; i < rows * chunks; i += threads_) {
      CopyAsync<16, 0, false>(to + i * 16 + __umulhi(i, inverse) * pad, from + i * 16, true);
    }
    for (; i < kRows * chunks; i += threads_) {
      *reinterpret_cast<uint4*>(slot + i * 16 + __umulhi(i, inverse) * pad) =
          make_uint4(0, 0, 0, 0);
    }
    const int size = narrow_y_ ? 2 : 4;
    if (args_.y != nullptr) CopyVector(slot + plan_.y_offset, args_.y, row, rows, args_.k * size);
    if (args_.s != nullptr) CopyVector(slot + plan_.s_offset, args_.s, row, rows, size);
  }
  __device__ int RowsFrom(std::int64_t row) const {
    const std::int64_t left = args_.n - row;
    return left < kRows ? static_cast<int>(left) : kRows;
  }
  // In pieces of 16 bytes while there are such, and no byte beyond the last row's.
  __device__ void CopyVector(unsigned char* to, const void* array, std::int64_t row, int rows,
                             int row_bytes) const {
    const char* const from = static_cast<const char*>(array) + row * row_bytes;
    const int bytes = rows * row_bytes, whole = aligned_ ? bytes / 16 * 16 : 0;
    for (int i = thread_ * 16; i < whole; i += threads_ * 16) {
      CopyAsync<16, 0, false>(SharedAddress(to) + i, from + i, true);
    }
    if (whole == bytes) return;
    const unsigned short* const halves = reinterpret_cast<const unsigned short*>(from);
    const int count = bytes / 2;
    for (int i = whole / 2 + thread_ * 2; i < count; i += threads_ * 2) {
      const std::uint32_t upper = i + 1 < count ? halves[i + 1] : 0;
      *reinterpret_cast<std::uint32_t*>(to + i * 2) = upper << 16 | halves[i];
    }
  }

  // `count` tiles, `stride` rows apart.
  __device__ void Segment(std::int64_t row, int stride, int count) {
    const int stages = plan_.stages, ahead = stages - 2;
    for (int i = 0; i < ahead; ++i) {
      if (i < count) CopyTile(Slot(i), row + std::int64_t{i} * stride);
      CommitCopies();
    }
    AwaitCopies(stages - 3);
    GroupBarrier();
    int slot = 0;
#pragma unroll 1
    for (int step = 0; step <= count; ++step, row += stride) {
      const int lane = NotHoisted(lane_);
      float* const parts = reinterpret_cast<float*>(parts_ + (step & 1) * plan_.warps * kPart);
      if (step < count) {
        float* const part = parts + thread_ / 32 * (kPart / 4);
        tile_.Products(
            lane, OwnColumns(Slot(slot)), plan_.pitch, [&](int r, int target, float a, float b) {
              *reinterpret_cast<float2*>(part + r * kTargets + target) = make_float2(a, b);
            });
      }
      AwaitCopies(stages - 4);  // the next tile is there
      GroupBarrier();
      if (step + ahead < count) {
        CopyTile(Slot(slot < 2 ? slot + ahead : slot - 2), row + std::int64_t{ahead} * stride);
      }
      CommitCopies();
      if (step < count) Residuals(parts, Slot(slot), row, residuals_ + (step & 1) * kResiduals);
      if (step > 0 && args_.finish.grad_out != nullptr) {
        tile_.AddGradient(lane, OwnColumns(Slot(slot == 0 ? stages - 1 : slot - 1)), plan_.pitch,
                          residuals_ + ((step - 1) & 1) * kResiduals);
      }
      slot = slot + 1 == stages ? 0 : slot + 1;
    }
    AwaitCopiesBut<0>();
  }
  // The compiler would keep every address that does not change from step to step in a register.
  __device__ static int NotHoisted(int i) {
    asm volatile("" : "+r"(i));
    return i;
  }
  __device__ unsigned char* Slot(int number) const { return ring_ + number * plan_.slot_bytes; }

  // Each thread has two targets, of some of the rows.
  __device__ void Residuals(const float* parts, const unsigned char* slot, std::int64_t row,
                            unsigned char* to) {
    const int rows = RowsFrom(row), step = threads_ / (kTargets / 2);
    const bool there[2] = {target_ < args_.k, target_ + 1 < args_.k};
    float loss[2] = {}, bias[2] = {};
#pragma unroll kRowsAtOnce
    for (int r = NotHoisted(thread_) / (kTargets / 2); r < kRows; r += step) {
      float residual[2] = {w_bias_[0], w_bias_[1]};
      const float* part = parts + r * kTargets + target_;
#pragma unroll 4
      for (int w = 0; w < plan_.warps; ++w, part += kRows * kTargets) {
        const float2 of = *reinterpret_cast<const float2*>(part);
        residual[0] += of.x;
        residual[1] += of.y;
      }
      if (args_.y != nullptr && r < rows) {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const int i = r * args_.k + target_ + t;
          if (there[t]) residual[t] -= ElementOfY(slot + plan_.y_offset, i);
        }
      }
      float weighted[2];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        if (r >= rows || !there[t]) residual[t] = 0;
        weighted[t] = residual[t];
      }
      if (args_.s != nullptr && r < rows) {
        const float weight = ElementOfY(slot + plan_.s_offset, r);
        weighted[0] *= weight;
        weighted[1] *= weight;
      }
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        loss[t] += weighted[t] * residual[t];
        bias[t] += weighted[t];
      }
      R::Store(to, Tile::PlaceOf(r), target_, weighted[0], weighted[1]);
    }
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      loss_[t] += static_cast<double>(loss[t]);
      if (args_.intercept) bias_[t] += static_cast<double>(bias[t]);
    }
  }
  __device__ float ElementOfY(const unsigned char* from, int i) const {
    if constexpr (sizeof(T) == 2) {
      if (narrow_y_) return Element<T>::Load(reinterpret_cast<const T*>(from)[i]);
    }
    return reinterpret_cast<const float*>(from)[i];
  }

  // Adds the groups' sums to the block's partial sums, in order, or writes them for the first time.
  __device__ void Flush(bool first) {
    const int columns = plan_.warps * Tile::kColumns, k = args_.k, d = args_.d;
    const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
    float* const sums = reinterpret_cast<float*>(shared_);
    double* const scalars =
        reinterpret_cast<double*>(sums + args_.plan.groups * columns * kTargets);
    __syncthreads();
    float* const own = sums + (group_ * columns + thread_ / 32 * Tile::kColumns) * kTargets;
    tile_.ForEachSum(lane_, [&](int c, int t, float a, float b) {
      *reinterpret_cast<float2*>(own + c * kTargets + t) = make_float2(a, b);
      exact_ = exact_ && fabsf(a) <= kMostSplit && fabsf(b) <= kMostSplit;
    });
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      double loss = loss_[t], bias = bias_[t];
      exact_ = exact_ && loss <= DBL_MAX;  // and so is every residual's square, in float32
      for (int mask = 16; mask >= kTargets / 2; mask /= 2) {
        loss += __shfl_xor_sync(0xffffffffu, loss, mask);
        bias += __shfl_xor_sync(0xffffffffu, bias, mask);
      }
      if (lane_ < kTargets / 2) {
        scalars[warp * kTargets + target_ + t] = bias;
        scalars[(warps + warp) * kTargets + target_ + t] = 0.5 * loss;
      }
      loss_[t] = bias_[t] = 0;
    }
    __syncthreads();
    double* const partial = args_.partials + blockIdx.x * args_.partial_stride();
    const int bias = args_.intercept ? k : 0;
    if (args_.finish.grad_out != nullptr) {
      for (int i = threadIdx.x; i < d * k; i += blockDim.x) {
        double total = 0;
        for (int g = 0; g < args_.plan.groups; ++g) {
          total += static_cast<double>(sums[(g * columns + i / k) * kTargets + i % k]);
        }
        AddPartial(partial + bias + i, total, first);
      }
    }
    for (int i = threadIdx.x; i < 2 * kTargets; i += blockDim.x) {
      const bool is_loss = i >= kTargets;
      const int target = i % kTargets;
      if (target >= k || (!is_loss && bias == 0)) continue;
      double total = 0;
      for (int w = 0; w < warps; ++w) total += scalars[(w + is_loss * warps) * kTargets + target];
      AddPartial(partial + (is_loss ? args_.weights() : 0) + target, total, first);
    }
    __syncthreads();
  }

  __device__ bool AllOfBlock(bool mine) const {
    int* const all = reinterpret_cast<int*>(shared_);
    const bool warps = !__any_sync(0xffffffffu, !mine);
    if (lane_ == 0) all[threadIdx.x / 32] = warps;
    __syncthreads();
    bool result = true;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) result = result && all[w] != 0;
    __syncthreads();
    return result;
  }

  const FusedArgs& args_;
  const TensorPlan& plan_;
  unsigned char* const shared_;
  const int lane_, threads_, group_, thread_;  // of a group: how many, which; its thread
  unsigned char *const ring_, *const parts_, *const residuals_;
  const bool aligned_, narrow_y_;  // Y and the sample weights: for copies of 16 bytes, 16 bits each
  const int target_;
  bool exact_ = true;
  Tile tile_;
  float w_bias_[2];
  double loss_[2] = {}, bias_[2] = {};
};

}  // namespace cuda
}  // namespace linreg_ops
