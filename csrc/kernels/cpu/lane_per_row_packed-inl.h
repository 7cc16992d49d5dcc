// Route lane_per_row_packed: a descent's steps from a copy of X, transposed once. A lane is a row,
// as in lane_per_row-inl.h, with the same bits, but the columns come from memory. Part of one
// instruction set's unit: see vec-inl.h.
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

// Loss and gradient of `rows` rows: rows first ... of the residuals' arrays. The gradient is added
// to lanes, double [d][W].
template <class C>
struct PackedRows {
  using V = Vec<C>;
  static constexpr int W = kLanes<C>;

  const C* x;  // [rows / W][d][W]
  std::int64_t d;
  const C* w;
  std::int64_t first, rows;

  void Run(Residuals<C>& residuals, double* lanes) {
    RunTable(residuals, lanes, std::make_integer_sequence<int, W>{});
  }

 private:
  template <int... kColumns>
  void RunTable(Residuals<C>& residuals, double* lanes, std::integer_sequence<int, kColumns...>) {
    using Fn = void (*)(PackedRows&, Residuals<C>&, double*);
    static constexpr Fn kTable[] = {&PackedRows::Run<kColumns + 1>...};
    kTable[d - 1](*this, residuals, lanes);
  }

  template <int D>
  static void Run(PackedRows& self, Residuals<C>& residuals, double* lanes) {
    self.Columns<D>(residuals, lanes);
  }

  template <int D>
  [[gnu::noinline]] void Columns(Residuals<C>& outer, double* lanes) {
    // Vectors of rows that share the loads of weights and of sums.
    constexpr int kVectors = kAccumulators >= 24 ? 4 : D < 8 ? 2 : 1;
    Residuals<C> residuals = outer;
    V sum[D];
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
    const C* const at = x + i * D;
    const auto column = [&](int j, int v)
                            __attribute__((always_inline)) { return Load(at + (v * D + j) * W); };
    V start[N][1], dot[N][kDots];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      residuals.Start(first + i + v * W, valid - v * W, start[v]);
      if constexpr (kDots == 1) dot[v][0] = start[v][0];
    }
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) {
      const V weight = Set(w[j]);
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
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[j] = Fma(start[v][0], column(j, v), sum[j]);
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
    Residuals<C> residuals = slot.OneResidual();
    alignas(64) double lanes[W * W] = {};
    Totals totals;
    const std::int64_t whole = WholeGroups<C>(slot, W);
    for (std::int64_t row = slot.begin; row < slot.end;) {
      const std::int64_t rows = row < whole ? Min(kLaneFlush<C>, whole - row) : slot.end - row;
      PackedRows<C>{packed + row * p.d, p.d, slot.Weights(), row, rows}.Run(residuals, lanes);
      totals.Take(residuals.sums);
      row += rows;
    }
    slot.template WriteTotals<1>(totals);
    slot.template WriteLanes<1>(lanes);
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
