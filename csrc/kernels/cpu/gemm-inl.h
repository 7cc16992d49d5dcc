// Routes gemm_slots and gemm_rounds: more than kFewTargets targets, as two matrix products that
// share X.
//
// A chunk of rows (chunk_rows) is multiplied by W into residuals R that stay in the cache, and R by
// the same rows of X into the gradient. Every element of R is a sum over parts of `depth` features,
// every element of the gradient one over some 250 rows, and these go into doubles; n×k is never
// stored. What is computed where:
//
// - gemm_slots-inl.h: few features times targets and many rows. One task takes a slot of rows
//   through both products, with a gradient of its own in double; the slots' are added up in order.
// - gemm_rounds-inl.h: otherwise. All workers compute the residuals of a round of rows, a stage,
//   then all compute the gradient, each its own part of it, the next stage.
//
// Part of one instruction set's unit: see vec-inl.h.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/few_driver-inl.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

template <class T>
struct Gemm {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int kLanes = cpu::kLanes<T>;
  static constexpr int W = kPanel<C>;

  static void Prepare(const Problem& p, const Plan& plan, char* workspace) {
    if (!p.intercept) return;
    C* bias = reinterpret_cast<C*>(workspace + plan.gemm.bias_offset);
    const C* w = static_cast<const C*>(p.w);
    for (std::int64_t t = 0; t < Panels(p) * W; ++t) bias[t] = t < p.k ? w[t] : C(0);
  }

  Gemm(const Problem& problem, const Plan& whole_plan, char* space, int worker)
      : p(problem),
        plan(whole_plan),
        m(whole_plan.gemm),
        n(problem.n),
        d(problem.d),
        k(problem.k),
        panels(Panels(problem)),
        workspace(space),
        scratch(space + m.scratch_offset + worker * m.scratch_bytes) {}

 protected:
  const Problem& p;
  const Plan& plan;
  const GemmPlan& m;
  const std::int64_t n, d, k, panels;
  char* const workspace;
  char* const scratch;

  static std::int64_t Panels(const Problem& p) { return (p.k + W - 1) / W; }

  C* Array(std::int64_t offset) const { return reinterpret_cast<C*>(workspace + offset); }
  double* Doubles(std::int64_t offset) const {
    return reinterpret_cast<double*>(workspace + offset);
  }
  int Width(std::int64_t panel) const {
    return static_cast<int>(Min<std::int64_t>(W, k - panel * W));
  }
  const C* Weights() const { return static_cast<const C*>(p.w) + (p.intercept ? k : 0); }
  // Whether the tiles read copies of X's rows, or the rows themselves, which are of type C then.
  bool Copied() const { return m.x_stride != d || !std::is_same_v<T, C>; }
  const C* InPlace(std::int64_t row) const {
    return reinterpret_cast<const C*>(static_cast<const T*>(p.x) + row * d);
  }
  double* Sums(std::int64_t i) const { return Doubles(m.sums_offset) + i * 2 * panels * W; }

  // Panels of W: [d][W], zeros behind the last column.
  void Pack(int task) const {
    const std::int64_t packed = panels - m.packed_from;
    const std::int64_t first = m.packed_from + packed * task / plan.tasks[0];
    const std::int64_t end = m.packed_from + packed * (task + 1) / plan.tasks[0];
    for (std::int64_t panel = first; panel < end; ++panel) {
      const int width = Width(panel);
      const C* from = Weights() + panel * W;
      C* to = Array(m.weights_offset) + (panel - m.packed_from) * d * W;
      for (std::int64_t j = 0; j < d; ++j, from += k, to += W) {
#pragma GCC unroll 2
        for (int v = 0; v < W; v += kLanes) Store(to + v, LoadUpTo(from + v, width - v));
      }
    }
  }

  // Residuals of `rows` rows from `row` on against panels [first, end), into r [panels][stride][W].
  // `feed_of(part, panel)` has what to fetch meanwhile.
  template <class FeedOfPanel>
  void Residuals(std::int64_t row, std::int64_t rows, const C* x, std::int64_t first,
                 std::int64_t end, const C* s, C* r, std::int64_t r_stride, double* sums,
                 const FeedOfPanel& feed_of) const {
    const std::int64_t parts = CeilDiv(d, m.depth) > 0 ? CeilDiv(d, m.depth) : 1;
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t from = part * m.depth;
      Tiles<C> q;
      q.steps = Min(m.depth, d - from);
      q.add = part > 0;
      q.a_stride = m.x_stride;
      for (std::int64_t panel = first; panel < end; ++panel) {
        auto&& feed = feed_of(part, panel);
        const bool packed = panel >= m.packed_from;
        q.b_stride = packed ? W : k;
        const C* w = packed ? Array(m.weights_offset) + (panel - m.packed_from) * d * W
                            : Weights() + panel * W;
        const int vectors = Width(panel) > kLanes ? 2 : 1;
        C* const panel_r = r + (panel - first) * r_stride;
        for (int v = 0; v < vectors; v += kTileVectors) {
          const int tile_vectors = Min(vectors - v, kTileVectors);
          q.b = w + from * q.b_stride + v * kLanes;
          const std::int64_t tiles = CeilDiv(rows, kTileRows);
          // Tiles of two sizes at most, so that none is so small as to wait for its own chains.
          std::int64_t done = 0;
          for (const bool large : {true, false}) {
            const std::int64_t height = rows / tiles + (large ? 1 : 0);
            q.count = large ? rows % tiles : tiles - rows % tiles;
            if (q.count == 0) continue;
            q.a = x + done * q.a_stride + from;
            q.out = panel_r + done * W + v * kLanes;
            q.ahead = feed.Take(q.count * q.steps);
            RunTiles<Along::kRows>(static_cast<int>(height), tile_vectors, q);
            done += q.count * height;
          }
        }
        if (part < parts - 1) continue;
        for (int v = 0; v < vectors; ++v) {
          const std::int64_t column = panel * W + v * kLanes;
          FinishResiduals<C> f;
          f.rows = rows;
          f.r = panel_r + v * kLanes;
          f.bias = p.intercept ? Array(m.bias_offset) + column : nullptr;
          f.y_stride = k;
          f.y_columns = Width(panel) - v * kLanes;
          f.s = s;
          f.loss = sums + column;
          f.bias_grad = sums + panels * W + column;
          if (p.wide_y || std::is_same_v<T, C>) {
            f.Run(cpu::At(static_cast<const C*>(p.y), row * k + column));
          } else {
            f.Run(cpu::At(static_cast<const T*>(p.y), row * k + column));
          }
        }
      }
    }
  }

  // Rows of X in the compute type with zeros behind, to [rows][x_stride].
  void CopyX(std::int64_t row, std::int64_t rows, C* to) const {
    const T* from = static_cast<const T*>(p.x) + row * d;
    for (std::int64_t i = 0; i < rows; ++i, from += d, to += m.x_stride) {
      std::int64_t j = 0;
      for (; j + kLanes <= d; j += kLanes) Store(to + j, Load(from + j));
      if (j < d) Store(to + j, LoadFirst(from + j, static_cast<int>(d - j)));
    }
  }

  void WriteSums(const double* sums) const {
    for (std::int64_t t = 0; t < k; ++t) p.loss[t] = sums[t];
    if (!p.intercept || p.grad == nullptr) return;
    for (std::int64_t t = 0; t < k; ++t) {
      static_cast<C*>(p.grad)[t] = static_cast<C>(sums[panels * W + t]);
    }
  }
  C* Gradient() const { return static_cast<C*>(p.grad) + (p.intercept ? k : 0); }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
