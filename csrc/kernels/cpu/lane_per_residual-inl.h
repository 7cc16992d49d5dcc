// Route lane_per_residual: up to eight features and targets. A lane is a residual, of one row and
// target, so that Y is read as it lies: targets are padded to a power of two P, and a vector is
// W / P rows of them. X is transposed into a tile, whose columns are spread over the lanes. Part of
// one instruction set's unit: see vec-inl.h.
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

// Loss and gradient of a tile's rows.
template <class C, int P>
struct ResidualTile {
  using V = Vec<C>;
  static constexpr int W = kLanes<C>;
  static constexpr int kRows = W / P;  // of a vector

  const C* columns;  // [d][stride], and a vector behind
  std::int64_t stride;
  const C* weights;  // [d][W]: of the lanes' targets
  std::int64_t rows;
  double* lanes;  // [d][W]: += the gradient, lane by lane; null: not wanted
  PrefetchCursor x_ahead, y_ahead;

  void Run(std::int64_t d, GroupResiduals<C, P>& residuals) {
    Table(d, residuals, std::make_integer_sequence<int, kNarrow + 1>{});
  }

 private:
  template <int... kColumns>
  void Table(std::int64_t d, GroupResiduals<C, P>& residuals,
             std::integer_sequence<int, kColumns...>) {
    // Plain pointers: of a table of pointers to members GCC 12's bounds check sees a wrong index.
    using Fn = void (*)(ResidualTile&, GroupResiduals<C, P>&);
    static constexpr Fn kTable[] = {&ResidualTile::Run<kColumns>...};
    kTable[d](*this, residuals);
  }

  template <int D>
  static void Run(ResidualTile& self, GroupResiduals<C, P>& residuals) {
    self.Columns<D>(residuals);
  }

  template <int D>
  [[gnu::noinline]] void Columns(GroupResiduals<C, P>& outer) {
    constexpr int kDots = DotAccumulators(D);
    GroupResiduals<C, P> residuals = outer;
    V sum[Max(D, 1)];
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) sum[j] = V{};
    for (std::int64_t i = 0; i < rows; i += kRows) {
      x_ahead.Step();
      y_ahead.Step();
      const auto column = [&](int j) __attribute__((always_inline)) {
        return SpreadRows<P>(columns + j * stride + i);
      };
      const V start = residuals.Start(i);
      V dot[kDots];
      if constexpr (kDots == 1) dot[0] = start;
#pragma GCC unroll 8
      for (int j = 0; j < D; ++j) {
        V& a = dot[j % kDots];
        const V w = Load(weights + j * W);
        a = kDots > 1 && j < kDots ? Mul(w, column(j)) : Fma(w, column(j), a);
      }
      const V r = residuals.Finish(i, rows - i, MergeWithStart(dot, start));
#pragma GCC unroll 8
      for (int j = 0; j < D; ++j) sum[j] = Fma(r, column(j), sum[j]);
    }
    outer.sums = residuals.sums;
    if (lanes == nullptr) return;
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) AddWide(lanes + j * W, sum[j]);
  }
};

template <class T>
struct LanePerResidual {
  using C = Compute<T>;
  static constexpr int W = kLanes<T>;

  // w as C [d][W]: for each lane what its target has, zeros in the lanes of none.
  static void Prepare(const Problem& p, const Plan& plan, char* workspace) {
    const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
    C* out = reinterpret_cast<C*>(workspace + plan.weights_offset);
    WithPadded(p.k, [&](auto padded) {
      for (std::int64_t i = 0; i < p.d * W; ++i) {
        const std::int64_t t = i % padded;
        out[i] = t < p.k ? w[i / W * p.k + t] : C(0);
      }
    });
  }

  static void Rows(const Slot<T>& slot) {
    WithPadded(slot.p.k, [&](auto padded) { Tiles<padded>(slot); });
  }

 private:
  template <int P>
  static void Tiles(const Slot<T>& slot) {
    const Problem& p = slot.p;
    const std::int64_t tile_rows = slot.plan.tile_rows, d = p.d;
    C* const columns = slot.Scratch(slot.plan.columns_offset);
    double* const lanes = reinterpret_cast<double*>(slot.scratch + slot.plan.lanes_offset);
    for (std::int64_t i = 0; i < d * W; ++i) lanes[i] = 0;
    Totals totals;
    const T* x = static_cast<const T*>(p.x);
    const std::int64_t x_row = d * sizeof(T);
    const std::int64_t y_row = p.y == nullptr ? 0 : p.k * (p.wide_y ? sizeof(C) : sizeof(T));
    for (std::int64_t row = slot.begin; row < slot.end; row += tile_rows) {
      const std::int64_t rows = Min(tile_rows, slot.end - row);
      TransposeRows(x + row * d, rows, d, columns, tile_rows);
      GroupResiduals<C, P> residuals = slot.template ResidualsOf<P>(row, rows);
      ResidualTile<C, P> tile = {
          columns,
          tile_rows,
          slot.PackedWeights(),
          rows,
          p.grad == nullptr ? nullptr : lanes,
          {reinterpret_cast<const char*>(x) + (row + rows) * x_row, W / P * x_row},
          {static_cast<const char*>(p.y) + (row + rows) * y_row, W / P * y_row}};
      tile.Run(d, residuals);
      totals.Take(residuals.sums);
    }
    slot.template WriteTotals<P>(totals);
    slot.template WriteLanes<P>(lanes);
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
