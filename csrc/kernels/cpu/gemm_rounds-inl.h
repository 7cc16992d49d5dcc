// Route gemm_rounds: many features times targets, or few rows; see gemm-inl.h. Part of one
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
class GemmRounds : private Gemm<T> {
 public:
  static void Run(const Problem& p, const Plan& plan, char* workspace, int stage, int task,
                  int worker) {
    const GemmRounds self(p, plan, workspace, worker);
    if (stage == 0) {
      self.Pack(task);
      if (self.Copied()) self.CopyRows(0, task, plan.tasks[0]);
      return;
    }
    const std::int64_t round = (stage - 1) / 2;
    return stage % 2 == 1 ? self.RoundResiduals(round, task) : self.RoundGradient(round, task);
  }

 private:
  using Base = Gemm<T>;
  using Base::Array, Base::Copied, Base::CopyX, Base::Doubles, Base::Gradient, Base::InPlace,
      Base::Residuals, Base::Sums, Base::Width, Base::WriteSums;
  using Base::Base;
  using Base::d, Base::k, Base::m, Base::n, Base::p, Base::panels, Base::plan, Base::scratch,
      Base::workspace;
  using Base::kLanes, Base::W;
  using typename Base::C;

  std::int64_t RoundBegin(std::int64_t round) const { return Min(round * m.span_rows, n); }
  std::int64_t RoundRows(std::int64_t round) const {
    return RoundBegin(round + 1) - RoundBegin(round);
  }
  std::int64_t LastRound() const { return (plan.stages - 3) / 2; }

  // Two rounds' rows of X, where they have to be copied.
  C* CopiedRows(std::int64_t round) const {
    return Array(m.x_offset) + round % 2 * m.span_rows * m.x_stride;
  }
  const C* RowsOfX(std::int64_t round) const {
    return Copied() ? CopiedRows(round) : InPlace(RoundBegin(round));
  }
  void CopyRows(std::int64_t round, std::int64_t task, std::int64_t tasks) const {
    const std::int64_t rows = RoundRows(round);
    const std::int64_t begin = rows * task / tasks, end = rows * (task + 1) / tasks;
    CopyX(RoundBegin(round) + begin, end - begin, CopiedRows(round) + begin * m.x_stride);
  }

  void RoundResiduals(std::int64_t round, int task) const {
    const std::int64_t groups = CeilDiv(panels, m.panels_per_task);
    const std::int64_t block = task / groups, group = task % groups;
    const std::int64_t first = group * m.panels_per_task;
    const std::int64_t last = Min(first + m.panels_per_task, panels);
    const std::int64_t begin = block * m.block_rows;
    const std::int64_t rows = Min(m.block_rows, RoundRows(round) - begin);
    double* sums = Sums(block);
    for (std::int64_t t = first * W; t < last * W; ++t) sums[t] = sums[panels * W + t] = 0;
    if (rows <= 0) return;
    const C* s = WideWeights<T>(p, RoundBegin(round) + begin, rows, reinterpret_cast<C*>(scratch));
    C* residuals = Array(m.residuals_offset) + (first * m.span_rows + begin) * W;
    Residuals(RoundBegin(round) + begin, rows, RowsOfX(round) + begin * m.x_stride, first, last, s,
              residuals, m.span_rows * W, sums, [&](std::int64_t part, std::int64_t panel) {
                return NextWeights(part, panel, first, last, rows);
              });
  }

  // The part of W that comes after this one, while `rows` rows are multiplied by this one.
  Feed NextWeights(std::int64_t part, std::int64_t panel, std::int64_t first, std::int64_t last,
                   std::int64_t rows) const {
    const bool wraps = panel + 1 == last;
    const std::int64_t next = wraps ? first : panel + 1, from = (part + wraps) * m.depth;
    if (next < m.packed_from || from >= d) return {};
    const std::int64_t vectors = Width(panel) > kLanes ? 2 : 1;
    return {Array(m.weights_offset) + ((next - m.packed_from) * d + from) * W,
            Min(m.depth, d - from) * W * static_cast<std::int64_t>(sizeof(C)), nullptr, 0,
            CeilDiv(rows, kTileRows) * CeilDiv(vectors, kTileVectors) * m.depth};
  }

  // The last task adds up the sums, the others have a part of the gradient.
  void RoundGradient(std::int64_t round, int task) const {
    if (task == plan.tasks[2] - 1) return RoundSums(round);
    if (round < LastRound() && Copied()) CopyRows(round + 1, task, plan.tasks[2] - 1);
    if (p.grad == nullptr) return;
    const std::int64_t groups = CeilDiv(panels, m.panels_per_gradient);
    const std::int64_t begin = task / groups * m.features_per_task;
    const std::int64_t end = Min(begin + m.features_per_task, d);
    const std::int64_t first = task % groups * m.panels_per_gradient;
    const std::int64_t last = Min(first + m.panels_per_gradient, panels);
    for (std::int64_t panel = first; panel < last; ++panel) {
      double* grad = reinterpret_cast<double*>(scratch);
      if (LastRound() > 0) grad = Doubles(m.grads_offset) + (panel * d + begin) * W;
      if (OneChain()) grad = nullptr;
      PanelGradient(round, panel, begin, end, panel + 1 < last, grad);
      if (round == LastRound() && grad != nullptr) WriteGradient(panel, begin, end, grad);
    }
  }

  // Whether each element of the gradient is a single chain of sums, and need not go through a
  // double: without, one row of 1000 features and 64 targets took 19 us, not 14.
  bool OneChain() const { return n > 0 && n <= m.chunk_rows; }

  // Features [begin, end) by one panel of R, to grad [end - begin][W]. The features' columns of X
  // stay in the second-level cache from one panel to the next, and the next panel is fetched
  // meanwhile. Without grad the sums are the gradient.
  void PanelGradient(std::int64_t round, std::int64_t panel, std::int64_t begin, std::int64_t end,
                     bool more, double* grad) const {
    const std::int64_t rows = RoundRows(round);
    if (round == 0 && grad != nullptr) {
      for (std::int64_t i = 0; i < (end - begin) * W; ++i) grad[i] = 0;
    }
    const int vectors = Width(panel) > kLanes ? 2 : 1;
    const C* x = RowsOfX(round);
    const C* residuals = Array(m.residuals_offset) + panel * m.span_rows * W;
    const std::int64_t tiles = CeilDiv(end - begin, kTileRows);
    Feed feed;
    if (more) {
      feed = Feed(residuals + m.span_rows * W, rows * W * static_cast<std::int64_t>(sizeof(C)),
                  nullptr, 0, rows * tiles * CeilDiv(vectors, kTileVectors));
    }
    Tiles<C> q;
    q.a_stride = m.x_stride;
    q.b_stride = W;
    for (std::int64_t row = 0; row < rows; row += m.chunk_rows) {
      q.steps = Min(m.chunk_rows, rows - row);
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const std::int64_t j = (end - begin) * tile / tiles;
        const std::int64_t height = (end - begin) * (tile + 1) / tiles - j;
        q.a = x + row * m.x_stride + begin + j;
        for (int v = 0; v < vectors; v += kTileVectors) {
          const int tile_vectors = Min(vectors - v, kTileVectors);
          q.b = residuals + row * W + v * kLanes;
          q.b_last = (tile_vectors - 1) * kLanes;
          alignas(64) C sums[kTileRows * W] = {};
          q.out = sums;
          q.ahead = feed.Take(q.steps);
          RunTiles<Along::kColumns>(static_cast<int>(height), tile_vectors, q);
          for (std::int64_t r = 0; r < height; ++r) {
            for (int i = 0; i < tile_vectors * kLanes; i += kLanes) {
              const C* const sum = sums + r * W + i;
              if (grad != nullptr) {
                AddWide(grad + (j + r) * W + v * kLanes + i, Load(sum));
                continue;
              }
              const std::int64_t target = panel * W + v * kLanes + i;
              C* const out = Gradient() + (begin + j + r) * k + target;
              if (target + kLanes <= k) {
                Store(out, Load(sum));
              } else {
                for (std::int64_t c = 0; c < k - target; ++c) out[c] = sum[c];
              }
            }
          }
        }
      }
    }
  }

  void WriteGradient(std::int64_t panel, std::int64_t begin, std::int64_t end,
                     const double* grad) const {
    const int width = Width(panel);
    for (std::int64_t j = begin; j < end; ++j, grad += W) {
      C* out = Gradient() + j * k + panel * W;
      int t = 0;
      for (; t + 8 <= width; t += 8) StoreF64(out + t, Load(grad + t));
      for (; t < width; ++t) out[t] = static_cast<C>(grad[t]);
    }
  }

  void RoundSums(std::int64_t round) const {
    const std::int64_t blocks = plan.tasks[1] / CeilDiv(panels, m.panels_per_task);
    double* total = Sums(blocks);
    for (std::int64_t t = 0; t < 2 * panels * W; ++t) {
      double sum = round == 0 ? 0 : total[t];
      for (std::int64_t block = 0; block < blocks; ++block) sum += Sums(block)[t];
      total[t] = sum;
    }
    if (round == LastRound()) WriteSums(total);
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
