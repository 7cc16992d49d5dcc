// Route gemm_slots: few features times targets and many rows; see gemm-inl.h. Part of one
// instruction set's unit: see vec-inl.h.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

template <class T>
class GemmSlots : private Gemm<T> {
 public:
  static void Run(const Problem& p, const Plan& plan, char* workspace, int stage, int task,
                  int worker) {
    const GemmSlots self(p, plan, workspace, worker);
    if (stage == 0) return self.Pack(task);
    return stage == 1 ? self.RunSlot(task) : self.ReduceSlots(task);
  }

 private:
  using Base = Gemm<T>;
  using Base::Base;
  using Base::Copied, Base::CopyX, Base::Doubles, Base::Gradient, Base::InPlace, Base::Residuals,
      Base::Sums, Base::Width, Base::WriteSums;
  using Base::d, Base::k, Base::m, Base::n, Base::p, Base::panels, Base::plan, Base::scratch,
      Base::workspace;
  using Base::kLanes, Base::W;
  using typename Base::C;

  std::int64_t XVectors() const { return CeilDiv(d, kLanes); }
  // Where vector v of a row of X begins. The last may overlap the one before, to end with the row.
  std::int64_t Start(std::int64_t v) const {
    return Min(v * kLanes, Copied() ? (XVectors() - 1) * kLanes : d - kLanes);
  }

  // What the next chunk will read.
  Feed FeedOf(std::int64_t row, std::int64_t rows) const {
    const std::int64_t next = row + rows < n ? row + rows : row;
    const std::int64_t next_rows = Min(m.chunk_rows, n - next);
    const std::int64_t residual_steps =
        CeilDiv(rows, kTileRows) * CeilDiv(CeilDiv(k, kLanes), kTileVectors) * d;
    const std::int64_t tiles = k / W * CeilDiv(W, kTileRows) + CeilDiv(k % W, kTileRows);
    const std::int64_t gradient_steps =
        p.grad == nullptr ? 0 : tiles * CeilDiv(XVectors(), kTileVectors) * rows;
    const std::int64_t y_size = p.wide_y ? sizeof(C) : sizeof(T);
    const char* y = static_cast<const char*>(p.y);
    return {static_cast<const T*>(p.x) + next * d,
            next_rows * d * static_cast<std::int64_t>(sizeof(T)),
            y == nullptr ? nullptr : y + next * k * y_size,
            y == nullptr ? 0 : next_rows * k * y_size, residual_steps + gradient_steps};
  }

  void RunSlot(int slot) const {
    double* grad = Doubles(m.grads_offset) + slot * m.slot_stride;
    double* sums = Sums(slot);
    for (std::int64_t t = 0; t < 2 * panels * W; ++t) sums[t] = 0;
    C* const residuals = reinterpret_cast<C*>(scratch);              // [kPanelsOfR][chunk_rows][W]
    C* const s_buffer = residuals + kPanelsOfR * m.chunk_rows * W;   // [chunk_rows]
    C* const chunk_grad = s_buffer + RoundUp(m.chunk_rows, kLanes);  // as the slot's
    C* const x_buffer = chunk_grad + m.slot_stride;                  // [chunk_rows][x_stride]
    const std::int64_t begin = slot * m.span_rows, end = Min(begin + m.span_rows, n);
    Ladder<C> gradient(chunk_grad, grad, p.grad == nullptr ? 0 : m.slot_stride);
    for (std::int64_t row = begin; row < end; row += m.chunk_rows) {
      if (p.cancelled != nullptr && p.cancelled(p.cancelled_context)) return;
      const std::int64_t rows = Min(m.chunk_rows, end - row);
      const C* s = WideWeights<T>(p, row, rows, s_buffer);
      if (Copied()) CopyX(row, rows, x_buffer);
      const C* x = Copied() ? x_buffer : InPlace(row);
      Feed feed = FeedOf(row, rows);
      for (std::int64_t first = 0; first < panels; first += kPanelsOfR) {
        const std::int64_t last = Min<std::int64_t>(first + kPanelsOfR, panels);
        Residuals(row, rows, x, first, last, s, residuals, m.chunk_rows * W, sums,
                  [&](std::int64_t, std::int64_t) -> Feed& { return feed; });
        if (p.grad == nullptr) continue;
        ChunkGradient(x, rows, first, last, residuals, chunk_grad, feed);
      }
      // Not tile by tile, which takes longer where X comes from memory, perhaps for doubles that X
      // has pushed out of the second-level cache (1000 features by 16 targets: 6.0 ms, not 5.7).
      gradient.Climb(rows, row + rows < end ? m.flush_rows : 0);
    }
  }

  // The gradient's transpose: [panels of d][k][W]. Vectors run along the features, so that no lane
  // is idle whatever k is.
  void ChunkGradient(const C* x, std::int64_t rows, std::int64_t first, std::int64_t last,
                     const C* residuals, C* grad, Feed& feed) const {
    for (std::int64_t v = 0; v < XVectors(); v += kTileVectors) {
      const int vectors = static_cast<int>(Min<std::int64_t>(XVectors() - v, kTileVectors));
      for (std::int64_t panel = first; panel < last; ++panel) {
        const int width = Width(panel);
        const int tiles = (width + kTileRows - 1) / kTileRows;
        for (int tile = 0; tile < tiles; ++tile) {
          const int j = width * tile / tiles, height = width * (tile + 1) / tiles - j;
          Tiles<C> q;
          q.a = residuals + (panel - first) * m.chunk_rows * W + j;
          q.a_stride = W;
          q.b = x + Start(v);
          q.b_stride = m.x_stride;
          q.b_last = Start(v + vectors - 1) - Start(v);
          q.steps = rows;
          q.out = grad + (v / 2 * k + panel * W + j) * W + v % 2 * kLanes;
          q.ahead = feed.Take(rows);
          RunTiles<Along::kColumns>(height, vectors, q);
        }
      }
    }
  }

  void ReduceSlots(int task) const {
    const std::int64_t slots = plan.tasks[1];
    if (task == 0) {
      double* total = Sums(slots);
      for (std::int64_t t = 0; t < 2 * panels * W; ++t) {
        double sum = Sums(0)[t];
        for (std::int64_t slot = 1; slot < slots; ++slot) sum += Sums(slot)[t];
        total[t] = sum;
      }
      WriteSums(total);
    }
    if (p.grad == nullptr) return;
    const double* grads = Doubles(m.grads_offset);
    const std::int64_t begin = task * m.features_per_reduction / kLanes;
    const std::int64_t end = Min(begin + m.features_per_reduction / kLanes, XVectors());
    for (std::int64_t v = begin; v < end; ++v) {
      const std::int64_t start = Start(v);
      for (std::int64_t j = 0; j < k; ++j) {
        const double* from = grads + (v / 2 * k + j) * W + v % 2 * kLanes;
        double lanes[kLanes];
        for (int i = 0; i < kLanes; i += 8) {
          F64x8 sum = Load(from + i);
          for (std::int64_t slot = 1; slot < slots; ++slot) {
            sum = Add(sum, Load(from + slot * m.slot_stride + i));
          }
          Store(lanes + i, sum);
        }
        // Each feature once: another task may have the vector that the last one overlaps.
        for (std::int64_t i = v * kLanes - start; i < Min<std::int64_t>(kLanes, d - start); ++i) {
          Gradient()[(start + i) * k + j] = static_cast<C>(lanes[i]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
