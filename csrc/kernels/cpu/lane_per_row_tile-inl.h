// Routes lane_per_row_tile (up to eight features and targets) and lane_per_row_packed (a descent's
// steps from a transposed copy of X). A lane is a row, as in lane_per_row-inl.h, but the columns
// lie in memory: a tile in L1d that every target reads, or the copy. Part of one instruction set's
// unit: see vec-inl.h.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/few_driver-inl.h"
#include "kernels/cpu/lane_per_row-inl.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// What is fetched from memory meanwhile, evenly.
struct PrefetchCursor {
  const char* at;
  std::int64_t bytes;  // per step

  [[gnu::always_inline]] void Step() {
    for (std::int64_t i = 0; i < bytes; i += 64) PrefetchOnce(at + i);
    at += bytes;
  }
};

// Loss and gradient of `rows` rows for one target: rows first ... of the residuals' arrays. The
// gradient is added to lanes, double [d][W].
template <class C>
struct TilePass {
  using V = Vec<C>;
  static constexpr int W = kLanes<C>;

  // Columns of vectors of rows: that of column j of rows i·W ... starts at x + i·vector_step +
  // j·column_step.
  const C* x;
  std::int64_t vector_step, column_step, d;
  const C* w;
  std::int64_t w_stride;
  std::int64_t first, rows;
  bool has_grad;
  PrefetchCursor x_ahead, y_ahead;

  void Run(Residuals<C>& residuals, double* lanes) {
    RunTable(residuals, lanes, std::make_integer_sequence<int, W + 1>{});
  }

 private:
  template <int... kColumns>
  void RunTable(Residuals<C>& residuals, double* lanes, std::integer_sequence<int, kColumns...>) {
    using Fn = void (TilePass::*)(Residuals<C>&, double*);
    static constexpr Fn kTable[] = {&TilePass::Columns<kColumns>...};
    (this->*kTable[d])(residuals, lanes);
  }

  template <int D>
  [[gnu::noinline]] void Columns(Residuals<C>& outer, double* lanes) {
    // Vectors of rows that share the loads of weights and of sums.
    constexpr int kVectors = kAccumulators >= 24 ? 4 : D < 8 ? 2 : 1;
    Residuals<C> residuals = outer;
    V sum[Max(D, 1)];
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) sum[j] = V{};
    std::int64_t i = 0;
    for (; i + kVectors * W <= rows; i += kVectors * W) {
      Vectors<D, kVectors>(i, kVectors * W, residuals, sum);
    }
    for (; i < rows; i += W) Vectors<D, 1>(i, rows - i, residuals, sum);
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) AddWide(lanes + j * W, sum[j]);
    outer.sums = residuals.sums;
  }

  // N vectors of rows from row i on, of which `valid` are there.
  template <int D, int N>
  [[gnu::always_inline]] void Vectors(std::int64_t i, std::int64_t valid, Residuals<C>& residuals,
                                      V* sum) {
    constexpr int kDots = DotAccumulators(D);
    const C* const at = x + i / W * vector_step;
    const auto column = [&](int j, int v) __attribute__((always_inline)) {
      return Load(at + v * vector_step + j * column_step);
    };
    V start[N][1], dot[N][kDots];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      x_ahead.Step();
      y_ahead.Step();
      residuals.Start(first + i + v * W, valid - v * W, start[v]);
      if constexpr (kDots == 1) dot[v][0] = start[v][0];
    }
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) {
      const V weight = Set(w[j * w_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) {
        V& a = dot[v][j % kDots];
        a = kDots > 1 && j < kDots ? Mul(weight, column(j, v)) : Fma(weight, column(j, v), a);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      start[v][0] = MergeWithStart(dot[v], start[v][0]);
      residuals.Finish(first + i + v * W, valid - v * W, start[v]);
    }
    if (!has_grad) return;
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[j] = Fma(start[v][0], column(j, v), sum[j]);
    }
  }
};

template <class T>
struct LanePerRowTile {
  using C = Compute<T>;
  static constexpr int W = kLanes<T>;

  static void Rows(const Slot<T>& slot) {
    const Problem& p = slot.p;
    const Plan& plan = slot.plan;
    const std::int64_t tile_rows = plan.tile_rows, k = p.k, d = p.d;
    C* const columns = slot.Scratch(plan.columns_offset);  // [d][tile_rows]
    double* const lanes = reinterpret_cast<double*>(slot.scratch + plan.lanes_offset);  // [k][d][W]
    for (std::int64_t i = 0; i < k * d * W; ++i) lanes[i] = 0;
    Totals totals[kFewTargets];
    const T* x = static_cast<const T*>(p.x);
    const std::int64_t y_row = p.y == nullptr ? 0 : k * (p.wide_y ? sizeof(C) : sizeof(T));
    // While a target is at work, its share of the next tile is fetched.
    const std::int64_t shares = Max<std::int64_t>(k, 1);
    const std::int64_t x_bytes = CeilDiv(W * d * sizeof(T), shares),
                       y_bytes = CeilDiv(W * y_row, shares);
    for (std::int64_t row = slot.begin; row < slot.end; row += tile_rows) {
      const std::int64_t rows = Min(tile_rows, slot.end - row);
      TransposeRows(x + row * d, rows, d, columns, tile_rows);
      const C* y = TransposedY(slot, row, rows, tile_rows);
      const C* s = WideWeights<T>(p, row, rows, slot.Scratch(plan.s_offset));
      const char* x_next = reinterpret_cast<const char*>(x + (row + rows) * d);
      const char* y_next = static_cast<const char*>(p.y) + (row + rows) * y_row;
      for (std::int64_t t = 0; t < k; ++t) {
        Residuals<C> residuals = slot.ResidualsOf(t, At(y, t * tile_rows), s);
        TilePass<C> pass = {columns,
                            W,
                            tile_rows,
                            d,
                            slot.Weights() + t,
                            k,
                            0,
                            rows,
                            p.grad != nullptr,
                            {x_next + t * rows / W * x_bytes, x_bytes},
                            {y_next + t * rows / W * y_bytes, y_bytes}};
        pass.Run(residuals, lanes + t * d * W);
        totals[t].Take(residuals.sums);
      }
    }
    for (std::int64_t t = 0; t < k; ++t) {
      slot.WriteTotals(t, totals[t]);
      slot.WriteLanes(t, lanes + t * d * W);
    }
  }
};

// From the plan's copy of X, C [rows / W][d][W] with zeros behind the last row.
template <class C>
struct LanePerRowPacked {
  static constexpr int W = kLanes<C>;

  static void Rows(const Slot<C>& slot) {
    const Problem& p = slot.p;
    const C* packed = reinterpret_cast<const C*>(slot.workspace + slot.plan.packed_offset);
    Residuals<C> residuals = slot.ResidualsOf(0);
    alignas(64) double lanes[W * W] = {};
    Totals totals;
    const std::int64_t whole = WholeGroups<C>(slot, W);
    for (std::int64_t row = slot.begin; row < slot.end;) {
      const std::int64_t rows = row < whole ? Min(kLaneFlush<C>, whole - row) : slot.end - row;
      TilePass<C> pass = {
          packed + row * p.d, W * p.d,     W, p.d, slot.Weights(), 1, row, rows, true,
          {nullptr, 0},       {nullptr, 0}};
      pass.Run(residuals, lanes);
      totals.Take(residuals.sums);
      row += rows;
    }
    slot.WriteTotals(0, totals);
    slot.WriteLanes(0, lanes);
  }

  static void Pack(const Problem& p, const Plan& plan, char* workspace) {
    C* out = reinterpret_cast<C*>(workspace + plan.packed_offset);
    const C* x = static_cast<const C*>(p.x);
    for (std::int64_t i = 0; i < RoundUp(p.n, W); ++i) {
      C* const lane = out + i / W * W * p.d + i % W;
      for (std::int64_t j = 0; j < p.d; ++j) lane[j * W] = i < p.n ? x[i * p.d + j] : C(0);
    }
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
