// Route lane_per_row: one target, rows of up to W elements. A lane is a row: W rows are transposed
// in registers, and go from X to the gradient without leaving them. Part of one instruction set's
// unit: see vec-inl.h.
//
// The dot of d products is one accumulator, or two or four from 4 and 8 columns on: short dots of
// nearly cancelling rows round less so, and a row's additions wait less for one another.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cpu/few_driver-inl.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// Accumulators of a row's dot. Also those of lane_per_row_packed-inl.h: a descent's steps have the
// bits of single evaluations.
constexpr int DotAccumulators(std::int64_t d) { return d < 4 ? 1 : d < 8 ? 2 : 4; }

// Accumulators and `start` added up. With several, `start` joins when they are complete: a sum that
// begins as large as y rounds all the way.
template <int N, class V>
[[gnu::always_inline]] inline V MergeWithStart(const V (&sum)[N], V start) {
  if constexpr (N == 1) return sum[0];  // began with it
  if constexpr (N == 2) return Add(Add(sum[0], start), sum[1]);
  if constexpr (N == 4) return Add(Add(Add(sum[0], sum[1]), start), Add(sum[2], sum[3]));
}

// Elements behind its rows that a group of rows may read.
template <class T>
constexpr int kReadBeyond = sizeof(T) == 2 ? 2 * kLanes<T> : kLanes<T>;
// Rows whose sums stay in C.
template <class T>
constexpr std::int64_t kLaneFlush = 32 * kLanes<T>;

// The end of the groups of rows that can be read in place.
template <class T>
std::int64_t WholeGroups(const Slot<T>& slot, std::int64_t group) {
  const Problem& p = slot.p;
  const std::int64_t whole = slot.begin + (slot.end - slot.begin) / group * group;
  const bool reads_beyond = whole * p.d + kReadBeyond<T> > p.n * p.d;
  return whole > slot.begin && reads_beyond ? whole - group : whole;
}

template <class T>
struct LanePerRow {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = kLanes<T>;

  static void Rows(const Slot<T>& slot) { Table(slot, std::make_integer_sequence<int, W>{}); }

 private:
  // What a block of rows works on. `lanes`: the gradient's sums, double [D][W].
  struct Block {
    const T* x;
    std::int64_t first, rows;
    const C* w;
    Residuals<T>* residuals;
    double* lanes;
  };
  struct Kernel {
    void (*run)(const Block&);
    int group_rows;
  };

  static constexpr int kBeyond = kReadBeyond<T>;
  static constexpr std::int64_t kFlush = kLaneFlush<T>;

  template <int... kColumn>
  static void Table(const Slot<T>& slot, std::integer_sequence<int, kColumn...>) {
    static constexpr Kernel kTable[] = {
        {Columns<kColumn + 1>::Run, Columns<kColumn + 1>::kGroupRows}...};
    Blocks(slot, kTable[slot.p.d - 1]);
  }

  // Blocks of rows whose sums stay in C. The last rows of X go through a zero-padded copy.
  static void Blocks(const Slot<T>& slot, const Kernel& kernel) {
    const Problem& p = slot.p;
    const T* x = static_cast<const T*>(p.x);
    Residuals<T> residuals = slot.OneResidual();
    alignas(64) double lanes[W * W] = {};
    Totals totals;
    const std::int64_t group = kernel.group_rows;
    Block block = {x, 0, 0, slot.Weights(), &residuals, lanes};
    const std::int64_t whole = WholeGroups<T>(slot, group);
    for (block.first = slot.begin; block.first < whole; block.first += kFlush) {
      block.x = x + block.first * p.d;
      block.rows = Min(kFlush, whole - block.first);
      kernel.run(block);
      totals.Take(residuals.sums);
    }
    if (whole < slot.end) {
      T tail[4 * W * W + kBeyond];
      block.first = whole;
      block.rows = slot.end - whole;
      const std::int64_t used = block.rows * p.d;
      for (std::int64_t i = 0; i < used; ++i) tail[i] = x[whole * p.d + i];
      for (std::int64_t i = used; i < RoundUp(block.rows, group) * p.d + kBeyond; ++i)
        tail[i] = T{};
      block.x = tail;
      kernel.run(block);
      totals.Take(residuals.sums);
    }
    slot.template WriteTotals<1>(totals);
    slot.template WriteLanes<1>(lanes);
  }

  template <int D>
  struct Columns {
    // 16-bit neighbours stay together while rows are transposed and are split last: half the
    // shuffles. Pairs of an odd number of columns straddle rows, and a lane is two of them; not
    // from 13 columns on, 26 vectors of which do not stay in registers.
    static constexpr bool kPaired = sizeof(T) == 2 && (D % 2 == 0 || D < 13);
    static constexpr int kLaneRows = kPaired && D % 2 == 1 ? 2 : 1;
    static constexpr int kGroupRows = kLaneRows * W;
    static constexpr int kDots = DotAccumulators(D);
    // How far ahead rows are fetched: 8 KiB of X and y.
    static constexpr int kRowsAhead = 8192 / (D * sizeof(T) + sizeof(T)) / kGroupRows * kGroupRows;

    [[gnu::noinline]] static void Run(const Block& block) {
      Residuals<T> residuals = *block.residuals;
      V weight[D], sum[D];
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) weight[j] = Set(block.w[j]);
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) sum[j] = V{};
      for (std::int64_t i = 0; i < block.rows; i += kGroupRows) {
        const T* const x = block.x + i * D;
        V column[Max(kLaneRows * D, PowerOfTwo(D))];
        LoadGroup(x, column);
        // Behind the loads, which a burst of fetches would hold up.
        Prefetch<kOnce, D * kGroupRows * sizeof(T)>(x + kRowsAhead * D);
        residuals.y.template Prefetch<kGroupRows>(block.first + i, kRowsAhead);
        V c[kLaneRows];
        const auto residuals_of = [&](std::int64_t valid) __attribute__((always_inline)) {
          residuals.Start(block.first + i, valid, c);
#pragma GCC unroll 2
          for (int h = 0; h < kLaneRows; ++h) c[h] = Dot(weight, column + h * D, c[h]);
          residuals.Finish(block.first + i, valid, c);
        };
        // Short rows ask once: to ask for each array took a fifth longer at d = 1.
        const std::int64_t valid = block.rows - i;
        D <= 6 && valid >= kGroupRows ? residuals_of(kGroupRows) : residuals_of(valid);
#pragma GCC unroll 2
        for (int h = 0; h < kLaneRows; ++h) {
#pragma GCC unroll 16
          for (int j = 0; j < D; ++j) sum[j] = Fma(c[h], column[h * D + j], sum[j]);
        }
      }
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) AddWide(block.lanes + j * W, sum[j]);
      block.residuals->sums = residuals.sums;
    }

    template <int N>
    [[gnu::always_inline]] static void LoadGroup(const T* x, V (&column)[N]) {
      if constexpr (kPaired) {
        constexpr int kPairs = kLaneRows * D / 2;
        V pair[PowerOfTwo(kPairs)];
        LoadColumns<kPairs>(reinterpret_cast<const C*>(x), pair);
#pragma GCC unroll 16
        for (int j = 0; j < kPairs; ++j) Split(x, pair[j], column[2 * j], column[2 * j + 1]);
      } else {
        LoadColumns<D>(x, column);
      }
    }

    [[gnu::always_inline]] static V Dot(const V* weight, const V* column, V start) {
      V sum[kDots];
      sum[0] = kDots == 1 ? Fma(weight[0], column[0], start) : Mul(weight[0], column[0]);
#pragma GCC unroll 4
      for (int j = 1; j < kDots; ++j) sum[j] = Mul(weight[j], column[j]);
#pragma GCC unroll 16
      for (int j = kDots; j < D; ++j) sum[j % kDots] = Fma(weight[j], column[j], sum[j % kDots]);
      return MergeWithStart(sum, start);
    }
  };
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
