// The register tiles of both matrix products of the gemm routes: kTileRows rows (MR) of
// kTileVectors virtual vectors (NR), each element one accumulator, a chain of fused multiply-adds
// from zero. Which tile an element falls in, and in which lane, changes no bit of it. Part of one
// instruction set's unit: see vec-inl.h.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// AVX-512: 12 rows of 2 vectors reach 262 of 265 GFLOP/s from the first-level cache; 14 rows fit
// the register file, but not with the addresses of 14 rows of X beside them.
constexpr int kTileVectors = kAccumulators >= 24 ? 2 : 1;
constexpr int kTileRows = kAccumulators / kTileVectors;

constexpr int kUnroll = 32;

// Columns of W and R are stored in panels of this many, whatever the tile.
template <class C>
constexpr int kPanel = 2 * kLanes<C>;

// Where to fetch from memory while computing: `bytes` per four steps.
struct Ahead {
  const char* at;
  std::int64_t bytes;
};

// Deals out what will be read next, x and then y, evenly over `steps` of computing. The hardware's
// own prefetchers lose 12 rows that are read side by side, and y, of which a tile reads 12 short
// pieces: without, 64 targets by 256 features ran at 194 GFLOP/s a core instead of 235.
class Feed {
 public:
  Feed() = default;
  Feed(const void* x, std::int64_t x_bytes, const void* y, std::int64_t y_bytes, std::int64_t steps)
      : at_(static_cast<const char*>(x)),
        bytes_(x_bytes),
        y_(static_cast<const char*>(y)),
        y_bytes_(y_bytes),
        steps_(steps) {}

  // For the next `steps` steps, of one array. What is left of y after the last goes at once: less
  // than the share of one tile.
  Ahead Take(std::int64_t steps) {
    if (bytes_ == 0) {
      at_ = y_;
      bytes_ = y_bytes_;
      y_bytes_ = 0;
    }
    // With d = 0 there are no steps at all.
    const double share =
        static_cast<double>(steps) / static_cast<double>(Max<std::int64_t>(Max(steps_, steps), 1));
    const std::int64_t taken =
        Min(static_cast<std::int64_t>(share * static_cast<double>(bytes_ + y_bytes_)), bytes_);
    steps_ -= steps;
    const Ahead ahead = {at_, (4 * taken / Max<std::int64_t>(steps, 1) + 7) & ~std::int64_t{7}};
    at_ += taken;
    bytes_ -= taken;
    if (steps_ <= 0) {
      for (std::int64_t i = 0; i < y_bytes_; i += 64) __builtin_prefetch(y_ + i, 0, 2);
      y_bytes_ = 0;
    }
    return ahead;
  }

 private:
  const char* at_ = nullptr;
  std::int64_t bytes_ = 0;
  const char* y_ = nullptr;
  std::int64_t y_bytes_ = 0;
  std::int64_t steps_ = 0;
};

inline void Fetch(Ahead& ahead) {
  for (std::int64_t i = 0; i < ahead.bytes; i += 64) __builtin_prefetch(ahead.at + i, 0, 2);
  ahead.at += ahead.bytes;
}

// Which way sums run over the left factor: along X's rows, or along columns, of R or of X.
enum class Along { kRows, kColumns };

// acc[r][v] += sum over t < steps of a(r, t) b(t, v), where a(r, t) is a[r·a_stride + t] along rows
// and a[r + t·a_stride] along columns, and b(t, v) starts at b + t·b_stride, its last vector
// b_last elements behind.
template <Along kAlong, class V, int R, int N, class C>
inline void Product(V (&acc)[R][N], const C* a, std::int64_t a_stride, const C* b,
                    std::int64_t b_stride, std::int64_t b_last, std::int64_t steps, Ahead& ahead) {
  constexpr bool kColumn = kAlong == Along::kColumns;
  // One pointer per three rows: x86 addresses reach base, base + stride and base + 2·stride. Left
  // alone the compiler keeps one per row, and spills accumulators for them; with more than two
  // steps between advances it keeps base + stride + step too, and 16 targets take 3% longer.
  constexpr int kBases = kColumn ? 1 : (R + 2) / 3;
  const std::int64_t bytes = a_stride * static_cast<std::int64_t>(sizeof(C));
  const char* base[kBases];
#pragma GCC unroll kUnroll
  for (int g = 0; g < kBases; ++g) base[g] = reinterpret_cast<const char*>(a) + 3 * g * bytes;
  const auto step = [&](std::int64_t t) __attribute__((always_inline)) {
    V bv[N];
#pragma GCC unroll kUnroll
    for (int v = 0; v < N - 1; ++v) bv[v] = Load(b + v * kLanes<C>);
    bv[N - 1] = Load(b + b_last);
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
      const char* at =
          kColumn ? base[0] + r * sizeof(C) : base[r / 3] + (r % 3) * bytes + t * sizeof(C);
      const V x = Set(*reinterpret_cast<const C*>(at));
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) acc[r][v] = Fma(x, bv[v], acc[r][v]);
    }
    b += b_stride;
    if (kColumn) base[0] += bytes;
  };
  const auto advance = [&](std::int64_t t) __attribute__((always_inline)) {
    if (kColumn) return;
#pragma GCC unroll kUnroll
    for (int g = 0; g < kBases; ++g) {
      base[g] += t * sizeof(C);
      asm("" : "+r"(base[g]));
    }
  };
  std::int64_t t = 0;
  for (; t + 4 <= steps; t += 4) {
    Fetch(ahead);
    step(0);
    step(1);
    advance(2);
    step(0);
    step(1);
    advance(2);
  }
  for (; t < steps; ++t) {
    step(0);
    advance(1);
  }
}

// Consecutive tiles of R rows (columns) of a left factor by the same N vectors of the right one.
template <class C>
struct Tiles {
  std::int64_t count = 1;  // of columns only one
  const C* a = nullptr;    // kRows: [count · R][a_stride], steps of it; kColumns: [steps][a_stride]
  std::int64_t a_stride = 0;
  const C* b = nullptr;  // [steps][b_stride]
  std::int64_t b_stride = 0;
  std::int64_t b_last = 0;  // kColumns: where the last vector begins, behind the first
  std::int64_t steps = 0;
  bool add = false;  // kRows: to what is in out; the sums of kColumns go on from it
  C* out = nullptr;  // [count · R][kPanel]
  Ahead ahead = {};
};

template <class C, int R, int N, Along kAlong>
void Multiply(const Tiles<C>& tiles) {
  const Tiles<C> p = tiles;
  Ahead ahead = p.ahead;
  const C* a = p.a;
  C* out = p.out;
  for (std::int64_t tile = 0; tile < p.count; ++tile, a += R * p.a_stride, out += R * kPanel<C>) {
    Vec<C> acc[R][N];
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) {
        acc[r][v] = kAlong == Along::kRows ? Vec<C>{} : Load(out + r * kPanel<C> + v * kLanes<C>);
      }
    }
    const std::int64_t b_last = kAlong == Along::kRows ? (N - 1) * kLanes<C> : p.b_last;
    Product<kAlong>(acc, a, p.a_stride, p.b, p.b_stride, b_last, p.steps, ahead);
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) {
        C* const to = out + r * kPanel<C> + v * kLanes<C>;
        Store(to, kAlong == Along::kRows && p.add ? Add(Load(to), acc[r][v]) : acc[r][v]);
      }
    }
  }
}

// Tiles of any size, 1 ... kTileRows by 1 ... kTileVectors.
template <Along kAlong, int N, class C, int... kRows>
void RunTiles(int rows, const Tiles<C>& tiles, std::integer_sequence<int, kRows...>) {
  static constexpr decltype(&Multiply<C, 1, N, kAlong>) kTable[] = {
      Multiply<C, kRows + 1, N, kAlong>...};
  kTable[rows - 1](tiles);
}
template <Along kAlong, class C>
void RunTiles(int rows, int vectors, const Tiles<C>& tiles) {
  using Rows = std::make_integer_sequence<int, kTileRows>;
  if (vectors == 1) return RunTiles<kAlong, 1>(rows, tiles, Rows{});
  if constexpr (kTileVectors == 2) RunTiles<kAlong, 2>(rows, tiles, Rows{});
}

// r = s (r + bias - y) for rows of one vector of targets, and the sums of them: with 64 features by
// 16 targets 1.7 of the residuals' 20 us (2016 rows). At the end of each tile, in registers, it is
// no faster, and every tile has all the cases.
template <class C>
struct FinishResiduals {
  std::int64_t rows;
  C* r;           // [rows, kPanel]
  const C* bias;  // [lanes], or null
  std::int64_t y_stride;
  int y_columns;      // columns of y there are, from 1 on
  const C* s;         // [rows], or null
  double* loss;       // [lanes]: += s r²
  double* bias_grad;  // [lanes]: += s r; null without bias

  using V = Vec<C>;
  static constexpr int kLanes = cpu::kLanes<C>;

  // y: [rows, y_stride], or null.
  template <class TY>
  void Run(const TY* y) const {
    if (bias == nullptr) return s == nullptr ? Rows<false, false>(y) : Rows<false, true>(y);
    return s == nullptr ? Rows<true, false>(y) : Rows<true, true>(y);
  }

 private:
  template <bool kBias, bool kWeights, class TY>
  void Rows(const TY* y) const {
    static constexpr TY kNone[kLanes] = {};
    const TY* const targets = y != nullptr ? y : kNone;
    const std::int64_t stride = y != nullptr ? y_stride : 0;
    const V b = kBias ? Load(bias) : V{};
    Sums even[kLanes / 8], odd[kLanes / 8];  // rows', which wait for one another
    const auto row = [&](std::int64_t i, Sums* sums) __attribute__((always_inline)) {
      const TY* const yi = targets + i * stride;
      V e = Load(r + i * kPanel<C>);
      if (kBias) e = Add(e, b);
      e = Sub(e, y_columns >= kLanes ? Load(yi) : LoadFirst(yi, y_columns));
      const V se = kWeights ? Mul(e, Set(s[i])) : e;
      Store(r + i * kPanel<C>, se);
      if constexpr (kLanes == 8) {
        sums[0].Take(se, e);
      } else {
        sums[0].Take(Low(se), Low(e));
        sums[1].Take(High(se), High(e));
      }
    };
    std::int64_t i = 0;
    for (; i + 2 <= rows; i += 2) {
      row(i, even);
      row(i + 1, odd);
    }
    if (i < rows) row(i, even);
#pragma GCC unroll 2
    for (int part = 0; part < kLanes / 8; ++part) {
      AddWide(loss + 8 * part, Add(even[part].loss, odd[part].loss));
      if (kBias) AddWide(bias_grad + 8 * part, Add(even[part].bias, odd[part].bias));
    }
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
