// The Gram engine's inner loops: packing, tiles, sums with their rounding errors. Part of one
// instruction set's unit: see vec-inl.h. What they compute is said in gram_kernel.h.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/gram_kernel.h"
#include "kernels/cpu/gram_lanes-inl.h"
#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

template <class T>
inline F64x8 LoadFirstF64(const T* p, int m) {
  if constexpr (std::is_same_v<T, double>) {
    return LoadFirst(p, m);
  } else {
    return Low(LoadFirst(p, m));
  }
}

// Some rows of P panels, so many for the sums not to wait for one another. kWhole: all columns
// exist, so that no lane has to be masked. Nothing of `p` is used in the loop, where the compiler
// would load it again for each row.
template <int P, bool kWhole, bool kWeights, bool kSquares, class T>
inline void PackRows(const GramPack& p, std::int64_t panel, std::int64_t begin, std::int64_t end,
                     std::int64_t ahead) {
  const std::int64_t first = (p.first_panel + panel) * kGramPanel;
  const T* const data = static_cast<const T*>(p.data) + first;
  const T* const beyond = static_cast<const T*>(p.end);
  const std::int64_t* const index = p.index;
  const std::int64_t stride = p.stride;
  const int columns = static_cast<int>(p.columns - first);
  const double* const weights = p.weights;
  double* const right = p.right + panel * kGramPanelSize;
  double* const left = p.left == nullptr ? nullptr : p.left + panel * kGramPanelSize;
  F64x8 scale[P], offset[P], sum[P], squares[P];
#pragma GCC unroll 2
  for (int v = 0; v < P; ++v) {
    scale[v] = Load(p.scale + first + v * kGramPanel);
    offset[v] = Load(p.offset + first + v * kGramPanel);
    sum[v] = Load(p.sum + (panel + v) * kGramPanel);
    if (kSquares) squares[v] = Load(p.squares + (panel + v) * kGramPanel);
  }
  for (std::int64_t i = begin; i < end; ++i) {
    const T* const row = data + (index != nullptr ? index[i] : i) * stride;
    PrefetchOnce(reinterpret_cast<const char*>(row) + ahead);
    if (P * sizeof(T) * kGramPanel > 64)
      PrefetchOnce(reinterpret_cast<const char*>(row) + ahead + 64);
#pragma GCC unroll 2
    for (int v = 0; v < P; ++v) {
      F64x8 z;
      if (kWhole) {
        z = Fma(LoadF64(row + v * kGramPanel), scale[v], offset[v]);
      } else if (beyond - row >= kGramPanel) {
        z = KeepFirst(Fma(LoadF64(row), scale[v], offset[v]), columns);
      } else {
        z = Fma(LoadFirstF64(row, columns), scale[v], offset[v]);
      }
      const F64x8 sz = kWeights ? Mul(z, Set(weights[i])) : z;
      Store(right + i * kGramPanel + v * kGramPanelSize, z);
      if (kWeights && !kSquares && left != nullptr) {
        Store(left + i * kGramPanel + v * kGramPanelSize, sz);
      }
      sum[v] = Add(sum[v], sz);
      if (kSquares) squares[v] = Fma(sz, z, squares[v]);
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < P; ++v) {
    Store(p.sum + (panel + v) * kGramPanel, sum[v]);
    if (kSquares) Store(p.squares + (panel + v) * kGramPanel, squares[v]);
  }
}

template <class T, bool kWeights, bool kSquares>
void PackPanels(const GramPack& p) {
  // All panels of so many rows, which are fetched while those before are packed: rows are read from
  // end to end, and a panel's part is a few lines.
  constexpr int kTogether = kSquares ? 1 : 2;
  const bool last_whole = (p.first_panel + p.panels) * kGramPanel <= p.columns;
  const std::int64_t whole = last_whole ? p.panels : p.panels - 1;
  const std::int64_t row_bytes = p.stride * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t fetched = Max<std::int64_t>(4096 / Max<std::int64_t>(row_bytes, 1), 8);
  const std::int64_t rows = p.panels <= kTogether ? kGramRunRows : fetched;
  const std::int64_t ahead = fetched * row_bytes;
  for (std::int64_t begin = 0; begin < p.rows; begin += rows) {
    const std::int64_t end = Min(begin + rows, p.rows);
    std::int64_t panel = 0;
    for (; panel + kTogether <= whole; panel += kTogether) {
      PackRows<kTogether, true, kWeights, kSquares, T>(p, panel, begin, end, ahead);
    }
    if (panel < whole) PackRows<1, true, kWeights, kSquares, T>(p, panel, begin, end, ahead);
    if (!last_whole) PackRows<1, false, kWeights, kSquares, T>(p, whole, begin, end, ahead);
  }
}

template <class T>
void PackGram(const GramPack& p) {
  if (p.squares == nullptr) {
    p.weights == nullptr ? PackPanels<T, false, false>(p) : PackPanels<T, true, false>(p);
  } else {
    p.weights == nullptr ? PackPanels<T, false, true>(p) : PackPanels<T, true, true>(p);
  }
}

template <class T>
void WidenGram(const void* from, double* to, std::int64_t count) {
  const T* const in = static_cast<const T*>(from);
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) Store(to + i, LoadF64(in + i));
  if (i == count) return;
  double tail[8];
  Store(tail, LoadFirstF64(in + i, static_cast<int>(count - i)));
  for (int j = 0; i + j < count; ++j) to[i + j] = tail[j];
}

// Some columns of left panels by N right panels.
struct GramTileOf {
  const double* left;
  const double* right;
  std::int64_t rows;
  double* tile;
  std::int64_t next_tile;  // of the next right panel
};

// Columns kFirst ... kFirst + R - 1 of a row of left panels by N right panels: each element one
// chain of multiply-adds over the rows. Offsets into the left panels are known to the compiler, and
// so a tile may begin in one panel and end in the next.
template <int R, int N, int kFirst = 0>
[[gnu::noinline]] void GramTile(const GramTileOf& p) {
  F64x8 acc[R][N];
#pragma GCC unroll kUnroll
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) acc[r][v] = Zero(F64x8{});
  }
  const double* left = p.left;
  const double* right = p.right;
#pragma GCC unroll 4
  for (std::int64_t t = 0, rows = p.rows; t < rows; ++t) {
    F64x8 b[N];
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) b[v] = Load(right + v * kGramPanelSize);
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
      const int c = kFirst + r;
      const F64x8 a = Set(left[c / kGramPanel * kGramPanelSize + c % kGramPanel]);
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) acc[r][v] = Fma(a, b[v], acc[r][v]);
    }
    left += kGramPanel;
    right += kGramPanel;
  }
#pragma GCC unroll kUnroll
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) {
      const int c = kFirst + r;
      double* const to =
          p.tile + v * p.next_tile + c / kGramPanel * kGramTile + c % kGramPanel * kGramPanel;
      Store(to, Add(Load(to), acc[r][v]));
    }
  }
}

// Enough vectors of sums for none to wait for itself.
constexpr int kGramChains = 4;

// The first `columns` columns of a left panel by N right panels.
template <int N, int R = 1>
void GramColumns(const GramTileOf& p, std::int64_t columns) {
  constexpr int kMost =
      N <= kTileVectors ? Min(kAccumulators / N, int{kGramPanel}) : kGramChains / N;
  if constexpr (R <= kMost) {
    if (columns == R) return GramTile<R, N>(p);
    GramColumns<N, R + 1>(p, columns);
  } else if constexpr (N == 1) {
    GramTile<4, 1>(p);
    GramTileOf rest = p;
    rest.left += 4;
    rest.tile += 4 * kGramPanel;
    GramColumns<1>(rest, columns - 4);
  }
}

// The first `columns` columns of three left panels by N right panels.
template <int N, int kFirst = 0>
void GramThreePanels(const GramTileOf& p, std::int64_t columns) {
  if constexpr (kFirst < 3 * kGramPanel) {
    if (kFirst >= columns) return;
    GramTile<kTileRows, N, kFirst>(p);
    GramThreePanels<N, kFirst + kTileRows>(p, columns);
  }
}

// And of two: six at a time keep both multipliers busier than four.
template <int N>
void GramTwoPanels(const GramTileOf& p, std::int64_t columns) {
  GramTile<6, N, 0>(p);
  GramTile<6, N, 6>(p);
  if (columns > 12) GramTile<4, N, 12>(p);
}

// Right panels to take together, so that enough sums do not wait for one another.
std::int64_t GramTogether(const GramTiles& p, std::int64_t q) {
  if (p.Lefts(q) < p.left_panels) return 1;
  const std::int64_t columns = p.left_panels == 1 ? p.last_columns : kGramPanel;
  const std::int64_t wanted = columns == 1 ? kGramChains : columns == 2 ? kGramChains / 2 : 1;
  return Min(Max<std::int64_t>(wanted, kTileVectors), p.right_end - q);
}

// The tiles of left panels `first` and the next two, as many as have some, by N right panels.
template <int N>
void GramTilesOf(const GramTiles& p, std::int64_t first, std::int64_t q, double* out) {
  const std::int64_t lefts = p.Lefts(q), end = Min(first + 3, lefts);
  const std::int64_t missing = end == p.left_panels ? kGramPanel - p.last_columns : 0;
  GramTileOf tile = {p.left + first * kGramPanelSize, p.right + q * kGramPanelSize, p.rows,
                     out + first * kGramTile, lefts * kGramTile};
  if constexpr (N <= kTileVectors) {
    if (first + 3 == end) return GramThreePanels<N>(tile, 3 * kGramPanel - missing);
    if constexpr (kTileRows == 6) {
      if (first + 2 == end) return GramTwoPanels<N>(tile, 2 * kGramPanel - missing);
    }
  }
  for (std::int64_t l = first; l < end; ++l) {
    const std::int64_t columns = kGramPanel - (l + 1 == end ? missing : 0);
    GramColumns<N>(tile, columns);
    tile.left += kGramPanelSize;
    tile.tile += kGramTile;
  }
}

// Three left panels, 24 KiB, stay in the first-level cache while the right ones pass.
void RunGramTiles(const GramTiles& p) {
  for (std::int64_t first = 0; first < p.left_panels; first += 3) {
    double* out = p.tiles;
    for (std::int64_t q = p.right_begin; q < p.right_end;) {
      const std::int64_t lefts = p.Lefts(q), together = first < lefts ? GramTogether(p, q) : 1;
      if (together == 4) {
        GramTilesOf<4>(p, first, q, out);
      } else if (together == 3) {
        GramTilesOf<3>(p, first, q, out);
      } else if (together == 2) {
        GramTilesOf<2>(p, first, q, out);
      } else {
        GramTilesOf<1>(p, first, q, out);
      }
      out += together * lefts * kGramTile;
      q += together;
    }
  }
}

// Knuth's TwoSum. Once a sum is not finite its error is NaN, and nobody asks for it.
void AccumulateGram(const double* add, double* sum, double* error, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kGramPanel) {
    const F64x8 a = Load(add + i), before = Load(sum + i);
    const F64x8 total = Add(before, a), added = Sub(total, before);
    const F64x8 off = Add(Sub(before, Sub(total, added)), Sub(a, added));
    Store(sum + i, total);
    Store(error + i, Add(Load(error + i), off));
  }
}

constexpr GramKernels kGram = {
    {PackGram<float>, PackGram<double>, PackGram<Half>, PackGram<BFloat16>},
    {ToLanes<float>, ToLanes<double>, ToLanes<Half>, ToLanes<BFloat16>},
    LaneSums,
    {WidenGram<float>, WidenGram<double>, WidenGram<Half>, WidenGram<BFloat16>},
    RunGramTiles,
    AccumulateGram,
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
