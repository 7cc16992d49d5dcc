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
      Base::Residuals, Base::Sums, Base::TilePanels, Base::Width, Base::WriteSums;
  using Base::Base;
  using Base::d, Base::k, Base::m, Base::n, Base::p, Base::panels, Base::plan, Base::scratch,
      Base::workspace;
  using Base::W;
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
              residuals, m.span_rows, sums,
              [&](std::int64_t part, std::int64_t panel, int vectors) {
                return NextWeights(part, panel, vectors, first, last, rows);
              });
  }

  // The part of the panel of W after these, while `rows` rows are multiplied by these.
  Feed NextWeights(std::int64_t part, std::int64_t panel, int vectors, std::int64_t first,
                   std::int64_t last, std::int64_t rows) const {
    const bool wraps = panel + vectors == last;
    const std::int64_t next = wraps ? first : panel + vectors, from = (part + wraps) * m.depth;
    if (next < m.packed_from || from >= d) return {};
    const C* const weights = Array(m.weights_offset) + ((next - m.packed_from) * d + from) * W;
    const std::int64_t bytes = Min(m.depth, d - from) * W * static_cast<std::int64_t>(sizeof(C));
    const bool two = TilePanels(next, last) == 2;
    return {weights, bytes, two ? weights + d * W : nullptr, two ? bytes : 0,
            CeilDiv(rows, kTileRows) * m.depth};
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
    for (std::int64_t panel = first; panel < last; panel += kTileVectors) {
      Block block;
      block.panel = panel;
      block.vectors = static_cast<int>(Min<std::int64_t>(last - panel, kTileVectors));
      block.begin = begin;
      block.end = end;
      if (OneChain()) {
        block.grad = nullptr;
      } else if (LastRound() > 0) {
        block.grad = Doubles(m.grads_offset) + (panel * d + begin) * W;
        block.grad_second = d * W;
      } else {
        block.grad = reinterpret_cast<double*>(scratch);
        block.grad_second = (end - begin) * W;
      }
      BlockGradient(round, block, panel + kTileVectors < last);
      if (round == LastRound() && block.grad != nullptr) WriteGradient(block);
    }
  }

  // Features [begin, end) by panels of R that one tile takes.
  struct Block {
    std::int64_t panel;
    int vectors;
    std::int64_t begin, end;
    double* grad;                  // [end - begin][W]; null: the tiles' sums are the gradient
    std::int64_t grad_second = 0;  // where the second panel's begins, behind the first
  };

  // Whether each element of the gradient is a single chain of sums, and need not go through a
  // double: without, one row of 1000 features and 64 targets took 19 us, not 14.
  bool OneChain() const { return n > 0 && n <= m.chunk_rows; }

  // The features' columns of X stay in the second-level cache from one block to the next, and the
  // next panels of R are fetched meanwhile.
  void BlockGradient(std::int64_t round, const Block& block, bool more) const {
    const std::int64_t rows = RoundRows(round), features = block.end - block.begin;
    if (round == 0 && block.grad != nullptr) {
      for (int v = 0; v < block.vectors; ++v) {
        double* const grad = block.grad + v * block.grad_second;
        for (std::int64_t i = 0; i < features * W; ++i) grad[i] = 0;
      }
    }
    const C* x = RowsOfX(round);
    const std::int64_t panel_size = m.span_rows * W;
    const C* residuals = Array(m.residuals_offset) + block.panel * panel_size;
    const std::int64_t tiles = CeilDiv(features, kTileRows);
    Feed feed;
    if (more) {
      const std::int64_t bytes = rows * W * static_cast<std::int64_t>(sizeof(C));
      const bool two = block.panel + kTileVectors + 1 < panels && kTileVectors == 2;
      const C* const next = residuals + kTileVectors * panel_size;
      feed = Feed(next, bytes, two ? next + panel_size : nullptr, two ? bytes : 0, rows * tiles);
    }
    Tiles<C> q;
    q.a_stride = m.x_stride;
    q.b_stride = W;
    q.b_second = panel_size;
    for (std::int64_t row = 0; row < rows; row += m.chunk_rows) {
      q.steps = Min(m.chunk_rows, rows - row);
      q.b = residuals + row * W;
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const std::int64_t j = features * tile / tiles;
        const std::int64_t height = features * (tile + 1) / tiles - j;
        alignas(64) C sums[kTileVectors * kTileRows * W] = {};
        q.a = x + row * m.x_stride + block.begin + j;
        q.out = sums;
        q.out_second = kTileRows * W;
        q.ahead = feed.Take(q.steps);
        RunTiles<Along::kColumns>(static_cast<int>(height), block.vectors, q);
        for (int v = 0; v < block.vectors; ++v) {
          AddTile(block, v, j, height, sums + v * q.out_second);
        }
      }
    }
  }

  // sums [height][W]: of features block.begin + j ..., by panel block.panel + v.
  void AddTile(const Block& block, int v, std::int64_t j, std::int64_t height,
               const C* sums) const {
    const std::int64_t panel = block.panel + v;
    const int width = Width(panel);
    double* const grad = block.grad + v * block.grad_second + j * W;
    C* out = Gradient() + (block.begin + j) * k + panel * W;
    for (std::int64_t r = 0; r < height; ++r, out += k) {
      if (block.grad != nullptr) {
        AddWide(grad + r * W, Load(sums + r * W));
      } else if (width == W) {
        Store(out, Load(sums + r * W));
      } else {
        for (int c = 0; c < width; ++c) out[c] = sums[r * W + c];
      }
    }
  }

  void WriteGradient(const Block& block) const {
    for (int v = 0; v < block.vectors; ++v) {
      const int width = Width(block.panel + v);
      const double* grad = block.grad + v * block.grad_second;
      for (std::int64_t j = block.begin; j < block.end; ++j, grad += W) {
        C* out = Gradient() + j * k + (block.panel + v) * W;
        int t = 0;
        for (; t + 8 <= width; t += 8) StoreF64(out + t, Load(grad + t));
        for (; t < width; ++t) out[t] = static_cast<C>(grad[t]);
      }
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
