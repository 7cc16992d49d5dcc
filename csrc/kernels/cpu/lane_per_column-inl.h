// Route lane_per_column: one target, rows of more than W elements, vectors along the row. Part of
// one instruction set's unit: see vec-inl.h.
//
// Rows go in groups. While the dots of one group are summed, X coming from memory in one sequence,
// the group before, still in L1d (or, of wider rows, in L2), is added to the gradient: with a phase
// for each, memory idles in the second. Four rows at a time share a load of w, and a load and a
// store of the gradient; rows of up to four vectors have both in registers. The sums of the lanes
// of a group's rows are one vector with a lane for each row.
#pragma once

#include <cstdint>

#include "kernels/cpu/few_driver-inl.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

template <class T>
class LanePerColumn {
 public:
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = kLanes<T>;

  static void Rows(const Slot<T>& slot) { LanePerColumn(slot).Run(); }

 private:
  static constexpr int kRows = 4;  // that share a load of w
  // A dot is a sum of sums over this many vectors.
  static constexpr std::int64_t kVectorsPerSegment = 256;
  static constexpr std::int64_t kAhead = 8192;  // bytes

  using GroupFn = void (LanePerColumn::*)(std::int64_t row, C* c);

  const Slot<T>& slot_;
  const T* const x_;
  const std::int64_t d_, whole_;  // columns, whole vectors of them
  const std::int64_t group_;      // rows: 4, 8 or 16, at most W
  const bool in_l1_;              // whether a group is still there for its second use
  const V tail_;                  // the columns of a row's last vector that no other has
  const C* const w_;
  C* const grad_;
  Residuals<T> residuals_;
  Totals totals_;

  explicit LanePerColumn(const Slot<T>& slot)
      : slot_(slot),
        x_(static_cast<const T*>(slot.p.x)),
        d_(slot.p.d),
        whole_(slot.p.d / W),
        group_(slot.plan.tile_rows),
        in_l1_(group_ * d_ * static_cast<std::int64_t>(sizeof(T)) <= (16 << 10)),
        tail_(KeepLast<C, W>(d_ % W)),
        w_(slot.PackedWeights()),
        grad_(slot.Scratch(slot.plan.grad_offset)),
        residuals_(slot.OneResidual()) {}

  void Run() {
    Ladder<C> gradient(grad_, slot_.grad, slot_.plan.padded_d);
    const auto climb = [&](std::int64_t rows, std::int64_t most) {
      if (gradient.Climb(rows, most)) totals_.Take(residuals_.sums);
    };
    alignas(64) C c[W];
    std::int64_t row = slot_.begin;
    const std::int64_t whole = row + (slot_.end - row) / group_ * group_;
    if (row < whole) {
      Group<true, false>(row, group_, c);
      const GroupFn few = group_ == W ? FewVectors() : nullptr;
      for (row += group_; row < whole; row += group_) {
        few != nullptr ? (this->*few)(row, c) : Group<true, true>(row, group_, c);
        climb(group_, kRowsPerFlush);
      }
      Group<false, true>(row, group_, c);
      climb(group_, kRowsPerFlush);
    }
    if (const std::int64_t rows = slot_.end - row; rows > 0) {
      Group<true, false>(row, rows, c);
      Group<false, true>(row + rows, rows, c);
      climb(rows, kRowsPerFlush);
    }
    climb(0, 0);
    slot_.template WriteTotals<1>(totals_);
  }

  // With kDots the residuals of `rows` rows from `row` on, into c; with kGrad first the gradient of
  // as many rows before them, from their c. Both have whole fours of rows, or only one is asked
  // for.
  template <bool kDots, bool kGrad>
  void Group(std::int64_t row, std::int64_t rows, C* c) {
    V sums[W / kRows];
#pragma GCC unroll 4
    for (int i = 0; i < W / kRows; ++i) sums[i] = V{};
    const T* x = x_ + row * d_;
    const T* before = x - rows * d_;
    for (std::int64_t begin = 0; begin < whole_; begin += kVectorsPerSegment) {
      const std::int64_t end = Min(begin + kVectorsPerSegment, whole_);
      std::int64_t i = 0;
      for (; i + kRows <= rows; i += kRows) {
        const V sum = Pass<kRows, kDots, kGrad>(x + i * d_, before + i * d_, begin, end, c + i);
        sums[i / kRows] = Add(sums[i / kRows], sum);
      }
      if constexpr (kDots != kGrad) {
        if (i == rows) continue;
        V each[kRows];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          each[r] = V{};
          if (i + r >= rows) continue;
          const std::int64_t row_offset = (i + r) * d_;
          each[r] =
              Pass<1, kDots, kGrad>(x + row_offset, before + row_offset, begin, end, c + i + r);
        }
        sums[i / kRows] = Add(sums[i / kRows], FoldRows(each));
      }
    }
    if constexpr (kDots) Finish(row, rows, sums, c);
  }

  // Group<true, true> for rows of N vectors, by the same additions in the same order. kTail: the
  // last vector brings the rest of the row with it.
  template <int N, bool kTail>
  [[gnu::noinline]] void GroupOf(std::int64_t row, C* c) {
    const std::int64_t d = d_;
    const T* x = x_ + row * d;
    const T* before = x - W * d;
    const V keep = tail_;
    const auto load = [&](const T* at, int v) __attribute__((always_inline)) {
      return kTail && v == N - 1 ? And(Load(at + d - W), keep) : Load(at + v * W);
    };
    V w[N], grad[N], sums[W / kRows];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      w[v] = Load(w_ + v * W);
      grad[v] = Load(grad_ + v * W);
    }
#pragma GCC unroll 4
    for (int i = 0; i < W / kRows; ++i, x += kRows * d, before += kRows * d) {
      V sum[kRows] = {};
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) {
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sum[r] = Fma(load(x + r * d, v), w[v], sum[r]);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          grad[v] = Fma(Set(c[i * kRows + r]), load(before + r * d, v), grad[v]);
        }
      }
      // Behind the loads, which a burst of fetches would hold up.
      constexpr int kBytes = kRows * N * W * static_cast<int>(sizeof(T));
      Prefetch<kOnce, kBytes>(reinterpret_cast<const char*>(x) + kAhead);
      sums[i] = FoldRows(sum);
    }
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) Store(grad_ + v * W, grad[v]);
    Finish(row, W, sums, c);
  }

  // GroupOf for rows of d_ elements; null if they are longer, or none.
  GroupFn FewVectors() const {
    constexpr GroupFn kFew[][2] = {
        {&LanePerColumn::template GroupOf<2, false>, &LanePerColumn::template GroupOf<2, true>},
        {&LanePerColumn::template GroupOf<3, false>, &LanePerColumn::template GroupOf<3, true>},
        {&LanePerColumn::template GroupOf<4, false>, &LanePerColumn::template GroupOf<4, true>}};
    const std::int64_t vectors = CeilDiv(d_, W);
    return d_ > 0 && vectors <= 4 ? kFew[vectors - 2][d_ % W != 0] : nullptr;
  }

  // The residuals of rows from the sums of their lanes, into c.
  void Finish(std::int64_t row, std::int64_t rows, const V (&sums)[W / kRows], C* c) {
    V start[1];
    residuals_.Start(row, rows, start);
    start[0] = AddLanes(sums, rows, start[0]);
    residuals_.Finish(row, rows, start);
    Store(c, start[0]);
  }

  // Lane i: start plus the sum of row i's lanes, of which sums[i / 4] has W / 4 sums in a row. The
  // last addition is with start: what cancels cancels before the sum is complete.
  static V AddLanes(const V (&sums)[W / kRows], std::int64_t rows, V start) {
    V first = sums[0], second = sums[rows > kRows ? 1 : 0];
    if constexpr (W == 16) {
      first = AddPairs(first, second);
      second = rows > 8 ? AddPairs(sums[2], sums[3]) : first;
    }
    V even, odd;
    Unzip(first, second, even, odd);
    return Add(Add(even, start), odd);
  }

  // The dots of kRows rows at x over vectors [begin, end): lanes r·W/kRows ... of the result add up
  // to that of row r. The gradient of as many rows at `before`, of residuals c. The last vectors
  // bring the rest of the row with them.
  template <int kRows, bool kDots, bool kGrad>
  [[gnu::noinline]] V Pass(const T* x, const T* before, std::int64_t begin, std::int64_t end,
                           const C* c) const {
    const std::int64_t d = d_;  // none of what is a member can be kept in a register
    const C* const weights = w_;
    C* const gradient = grad_;
    const bool in_l1 = in_l1_;
    V residual[kRows], sum[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      residual[r] = kGrad ? Set(c[r]) : V{};
      sum[r] = V{};
    }
    const auto column = [&](const auto& load, std::int64_t v) __attribute__((always_inline)) {
      if constexpr (kDots) {
        const V w = Load(weights + v * W);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sum[r] = Fma(load(x + r * d), w, sum[r]);
      }
      if constexpr (kGrad) {
        V grad = Load(gradient + v * W);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) grad = Fma(residual[r], load(before + r * d), grad);
        Store(gradient + v * W, grad);
      }
    };
    constexpr int kBytes = kRows * W * static_cast<int>(sizeof(T));
    const char* ahead = reinterpret_cast<const char*>(x) + begin * kBytes + kAhead;
    const auto fetch = [&]() __attribute__((always_inline)) {
      in_l1 ? Prefetch<kOnce, kBytes>(ahead) : Prefetch<kAgain, kBytes>(ahead);
    };
    for (std::int64_t v = begin; v < end; ++v, ahead += kBytes) {
      if constexpr (kDots) fetch();
      column([&](const T* row) __attribute__((always_inline)) { return Load(row + v * W); }, v);
    }
    if (end == whole_ && end * W < d) {
      if constexpr (kDots) fetch();
      const V keep = tail_;
      column([&](const T* row)
                 __attribute__((always_inline)) { return And(Load(row + d - W), keep); },
             end);
    }
    if constexpr (kRows == 1) return sum[0];
    if constexpr (kRows > 1) return FoldRows(sum);
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
