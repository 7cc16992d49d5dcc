// Route few_targets: two to eight targets, rows of more than eight elements. Part of one
// instruction set's unit: see vec-inl.h.
//
// A tile of rows goes through three phases: dots, residuals, gradient. Its second use hits L1d, or
// L2 for rows of thousands of columns; a row wider than half of L2 comes from L3. The dots' and the
// gradient's phase each fetch half of the next tile, so that memory is never idle.
//
// Dots: the lanes of a vector of weights are P targets (2, 4 or 8) times W / P columns, and a row's
// elements are broadcast to them, W / P at a time. The lanes of missing targets have zero weights.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/few_driver-inl.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// Half of what a phase reads is fetched for the tile after it, into L2 too: that is where a tile
// wider than L1d is found again.
template <int kBytes>
[[gnu::always_inline]] inline void FetchNext(const char*& at) {
  Prefetch<kAgain, kBytes>(at);
  at += kBytes;
}

// The dots of rows with P targets.
template <class T, int P>
struct GroupDots {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = kLanes<T>;
  static constexpr int G = W / P;  // columns of a group
  // Rows that share a load of w. Long rows are read four at a time: sixteen of 8, 16, ... KiB have
  // their columns in the same places of L1d, which lose each other.
  static constexpr int kFewRows = 4, kRows = kAccumulators >= W ? W : kFewRows;
  static constexpr std::int64_t kLongRow = 8 << 10;  // bytes
  // A dot is a sum of sums over this many groups, whose weights fill half of a small L1d.
  static constexpr std::int64_t kGroupsPerSegment = 256;

  // w [d, k] as C [groups][P][G]. The last group of a row whose length is no multiple of G ends
  // with the row; columns that the group before has get no weight.
  static void PackWeights(const Problem& p, C* out) {
    const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
    const std::int64_t groups = CeilDiv(p.d, G);
    for (std::int64_t group = 0; group < groups; ++group, out += W) {
      const std::int64_t first = group * G, start = Min(first, p.d - G);
      for (int t = 0; t < P; ++t) {
        for (int j = 0; j < G; ++j) {
          const bool has = t < p.k && start + j >= first;
          out[t * G + j] = has ? w[(start + j) * p.k + t] : C(0);
        }
      }
    }
  }

  // dots[i·P + t] = x[i]·w[t] for t < k, i < rows, and anything for rows up to a multiple of W.
  static void Rows(const T* x, std::int64_t d, std::int64_t rows, const C* w, C* dots) {
    const std::int64_t groups = d / G;
    const char* next = reinterpret_cast<const char*>(x + rows * d);
    for (std::int64_t begin = 0; begin < groups; begin += kGroupsPerSegment) {
      const std::int64_t end = Min(begin + kGroupsPerSegment, groups);
      for (std::int64_t row = 0; row < rows; row += W) {
        alignas(64) C sums[W * W];
        const std::int64_t count = Min<std::int64_t>(rows - row, W);
        std::int64_t i = 0;
        if (kRows > kFewRows && d * static_cast<std::int64_t>(sizeof(T)) < kLongRow) {
          for (; i + kRows <= count; i += kRows) {
            Dot<kRows>(x + (row + i) * d, d, begin, end, w, next, sums + i * W);
          }
        }
        for (; i + kFewRows <= count; i += kFewRows) {
          Dot<kFewRows>(x + (row + i) * d, d, begin, end, w, next, sums + i * W);
        }
        for (; i < count; ++i) Dot<1>(x + (row + i) * d, d, begin, end, w, next, sums + i * W);
        Combine(sums, begin > 0, dots + row * P);
      }
    }
  }

 private:
  // sums[i] = Σ over groups of x[i]·w, lane by lane, for i < R.
  template <int R>
  [[gnu::noinline]] static void Dot(const T* x, std::int64_t d, std::int64_t begin,
                                    std::int64_t end, const C* w, const char*& outer_next,
                                    C* sums) {
    // One pointer per three rows: see Product in gemm_tile-inl.h.
    constexpr int kBases = (R + 2) / 3;
    const T* base[kBases];
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * d + begin * G;
    V sum[R];
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) sum[i] = V{};
    const char* next = outer_next;
    const C* weights = w + begin * W;
    const auto step = [&](std::int64_t group) __attribute__((always_inline)) {
      const V wv = Load(weights + group * W);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        sum[i] = Fma(SetGroup<G>(base[i / 3] + i % 3 * d + group * G), wv, sum[i]);
      }
    };
    const auto advance = [&](std::int64_t count) __attribute__((always_inline)) {
      weights += count * W;
#pragma GCC unroll 8
      for (int b = 0; b < kBases; ++b) {
        base[b] += count * G;
        asm("" : "+r"(base[b]));
      }
    };
    constexpr int kUnroll = 4;
    std::int64_t group = begin;
    for (; group + kUnroll <= end; group += kUnroll) {
      FetchNext<kUnroll * G * R* static_cast<int>(sizeof(T)) / 2>(next);
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) step(u);
      advance(kUnroll);
    }
    for (; group < end; ++group) {
      FetchNext<G * R* static_cast<int>(sizeof(T)) / 2>(next);
      step(0);
      advance(1);
    }
    if (end == d / G && d % G != 0) {
      const V mask = KeepLast<C, G>(d % G), wv = Load(weights);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        sum[i] = Fma(And(SetGroup<G>(x + (i + 1) * d - G), mask), wv, sum[i]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) Store(sums + i * W, sum[i]);
    outer_next = next;
  }

  // The sum of rows' G lanes for each target, from [G rows][P][G].
  template <int N>
  [[gnu::always_inline]] static V AddGroups(const C* sums) {
    if constexpr (N == 1) return Load(sums);
    if constexpr (N > 1)
      return AddPairs(AddGroups<N / 2>(sums), AddGroups<N / 2>(sums + N / 2 * W));
  }

  // From [W rows][P][G], G to be added up, to (or onto) [W rows][P].
  static void Combine(const C* sums, bool add, C* dots) {
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i, dots += W) {
      const V sum = AddGroups<G>(sums + i * G * W);
      Store(dots, add ? Add(Load(dots), sum) : sum);
    }
  }
};

// grad[t][j] += Σᵢ c[i][t]·x[i][j] of a tile, for K targets that are padded to P.
template <class T, int K, int P>
struct TileGradient {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = kLanes<T>;
  // Few sums are split in two over the rows, to wait less for one another; whatever the registers.
  static constexpr int kSplit = K <= 3 ? 2 : 1;
  static constexpr int kVectors = Max(1, Min(4, kAccumulators / (K * kSplit)));

  static void Rows(const T* x, std::int64_t d, std::int64_t rows, const C* c, C* grad,
                   std::int64_t padded_d) {
    const char* next = reinterpret_cast<const char*>(x + rows * d + rows * d / 2);
    const std::int64_t whole = d / W;
    std::int64_t v = 0;
    const auto at_v = [&](const T* row, int i) { return Load(row + (v + i) * W); };
    for (; v + kVectors <= whole; v += kVectors) {
      Columns<kVectors>(at_v, x, d, rows, c, grad + v * W, padded_d, next);
    }
    for (; v < whole; ++v) {
      Columns<1>(at_v, x, d, rows, c, grad + v * W, padded_d, next);
    }
    if (whole * W < d) {
      Columns<1>([&](const T* row, int) { return LoadTail(row, d); }, x, d, rows, c, grad + v * W,
                 padded_d, next);
    }
  }

 private:
  template <int N, class LoadRow>
  [[gnu::noinline]] static void Columns(const LoadRow load, const T* x, std::int64_t d,
                                        std::int64_t rows, const C* c, C* grad,
                                        std::int64_t padded_d, const char*& outer_next) {
    V sum[K][N][kSplit];
#pragma GCC unroll 32
    for (int i = 0; i < K * N * kSplit; ++i) {
      sum[i / (N * kSplit)][i / kSplit % N][i % kSplit] = V{};
    }
    const char* next = outer_next;
    const auto add = [&](std::int64_t i, int part) __attribute__((always_inline)) {
      V row[N];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) row[v] = load(x + i * d, v);
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) {
        const V ci = Set(c[i * P + t]);
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) sum[t][v][part] = Fma(ci, row[v], sum[t][v][part]);
      }
    };
    std::int64_t i = 0;
    for (; i + 2 <= rows; i += 2) {
      FetchNext<N * W* static_cast<int>(sizeof(T))>(next);
      add(i, 0);
      add(i + 1, kSplit - 1);
    }
    if (i < rows) add(i, 0);
#pragma GCC unroll 8
    for (int t = 0; t < K; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) {
        C* out = grad + t * padded_d + v * W;
        Store(out, Add(Load(out), Merge(sum[t][v])));
      }
    }
    outer_next = next;
  }
};

template <class T>
struct FewTargets {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = kLanes<T>;

  static void Prepare(const Problem& p, const Plan& plan, char* workspace) {
    C* out = reinterpret_cast<C*>(workspace + plan.weights_offset);
    WithPadded(p.k, [&](auto padded) { GroupDots<T, padded>::PackWeights(p, out); });
  }

  static void Rows(const Slot<T>& slot) {
    WithPadded(slot.p.k, [&](auto padded) { Tiles<padded>(slot); });
  }

 private:
  template <int P>
  static void Tiles(const Slot<T>& slot) {
    const Problem& p = slot.p;
    const Plan& plan = slot.plan;
    C* const grad = slot.Scratch(plan.grad_offset);  // [k][padded_d]
    C* const c = slot.Scratch(plan.c_offset);        // [tile_rows][P]: dots, then residuals
    Ladder<C> gradient(grad, slot.grad, p.k * plan.padded_d);
    static constexpr decltype(&TileGradient<T, P, P>::Rows) kGradient[] = {
        TileGradient<T, P, P>::Rows, TileGradient<T, Max(P - 1, P / 2 + 1), P>::Rows,
        TileGradient<T, Max(P - 2, P / 2 + 1), P>::Rows,
        TileGradient<T, Max(P - 3, P / 2 + 1), P>::Rows};
    Totals totals;
    for (std::int64_t row = slot.begin; row < slot.end; row += plan.tile_rows) {
      const T* x = static_cast<const T*>(p.x) + row * p.d;
      const std::int64_t rows = Min(plan.tile_rows, slot.end - row);
      GroupDots<T, P>::Rows(x, p.d, rows, slot.PackedWeights(), c);
      GroupResiduals<C, P> residuals = slot.template ResidualsOf<P>(row, rows);
      slot.FetchTargets(row + rows, rows);
      for (std::int64_t i = 0; i < rows; i += W / P) {
        C* const dots = c + i * P;
        Store(dots, residuals.Finish(i, rows - i, Add(Load(dots), residuals.Start(i))));
      }
      totals.Take(residuals.sums);
      if (p.grad == nullptr) continue;
      kGradient[P - p.k](x, p.d, rows, c, grad, plan.padded_d);
      gradient.Climb(rows, row + rows < slot.end ? kRowsPerFlush : 0);
    }
    slot.template WriteTotals<P>(totals);
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
