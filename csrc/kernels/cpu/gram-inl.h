// The Gram engine's inner loops: packing, tiles, sums with their rounding errors. Part of one
// instruction set's unit: see vec-inl.h. What they compute is said in gram_kernel.h.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/gram_kernel.h"
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
  // All panels of so many rows: rows are read from end to end, and a panel's part is a few lines.
  constexpr std::int64_t kRows = 8;
  constexpr int kTogether = kSquares ? 1 : 2;
  const bool last_whole = (p.first_panel + p.panels) * kGramPanel <= p.columns;
  const std::int64_t whole = last_whole ? p.panels : p.panels - 1;
  const std::int64_t rows = p.panels == 1 ? kGramRunRows : kRows;
  const std::int64_t bytes = kRows * p.stride * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t ahead = bytes * CeilDiv(4096, Max<std::int64_t>(bytes, 1));
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

// Columns kFirst ... kFirst + R - 1 of a row of left panels by N right panels: each element one
// chain of multiply-adds over the rows. Offsets into the left panels are known to the compiler, and
// so a tile may begin in one panel and end in the next.
template <int R, int N, int kFirst>
void GramTile(const double* left, const double* right, std::int64_t rows, bool add, double* tile,
              std::int64_t next_tile) {
  F64x8 acc[R][N];
#pragma GCC unroll kUnroll
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) acc[r][v] = Zero(F64x8{});
  }
#pragma GCC unroll 4
  for (std::int64_t t = 0; t < rows; ++t, left += kGramPanel, right += kGramPanel) {
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
  }
#pragma GCC unroll kUnroll
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) {
      const int c = kFirst + r;
      double* const to =
          tile + v * next_tile + c / kGramPanel * kGramTile + c % kGramPanel * kGramPanel;
      Store(to, add ? Add(Load(to), acc[r][v]) : acc[r][v]);
    }
  }
}

void ZeroRows(double* tile, std::int64_t first, std::int64_t end) {
  for (std::int64_t i = first * kGramPanel; i < end * kGramPanel; ++i) tile[i] = 0;
}

// The first `columns` columns of one left panel, or of three, by N right panels.
template <int N>
void GramPanelTile(const double* left, std::int64_t columns, const double* right, std::int64_t rows,
                   bool add, double* tile, std::int64_t next) {
  constexpr int R = kTileVectors == 2 ? 8 : 4;
  GramTile<R, N, 0>(left, right, rows, add, tile, next);
  if constexpr (R == 4) {
    if (columns > R) {
      GramTile<R, N, R>(left, right, rows, add, tile, next);
    } else if (!add) {
      ZeroRows(tile, R, kGramPanel);
    }
  }
}

template <int N, int kFirst = 0>
void GramThreePanelTile(const double* left, std::int64_t columns, const double* right,
                        std::int64_t rows, bool add, double* tile, std::int64_t next) {
  constexpr int R = kTileRows;  // 6 or 12
  if constexpr (kFirst < 3 * kGramPanel) {
    if (kFirst < columns) {
      GramTile<R, N, kFirst>(left, right, rows, add, tile, next);
      GramThreePanelTile<N, kFirst + R>(left, columns, right, rows, add, tile, next);
    } else if (!add) {
      for (int v = 0; v < N; ++v) ZeroRows(tile + v * next, kFirst, 3 * kGramPanel);
    }
  }
}

// The tiles of three left panels, from number l of the group on, by right panels q ... q + N - 1;
// of fewer, where there are no more in the group or up to q.
template <int N>
void GramTilesOf(const GramTiles& p, std::int64_t l, std::int64_t lefts, std::int64_t q,
                 double* out) {
  const double* const right = p.right + q * kGramPanelSize;
  const std::int64_t missing = kGramPanel - p.last_columns;
  const std::int64_t next = lefts * kGramTile;
  if (l + 3 <= lefts) {
    const std::int64_t columns = 3 * kGramPanel - (l + 3 == p.group_panels ? missing : 0);
    GramThreePanelTile<N>(p.left + l * kGramPanelSize, columns, right, p.rows, p.add,
                          out + l * kGramTile, next);
    return;
  }
  for (; l < lefts; ++l) {
    const std::int64_t columns = kGramPanel - (l + 1 == p.group_panels ? missing : 0);
    GramPanelTile<N>(p.left + l * kGramPanelSize, columns, right, p.rows, p.add,
                     out + l * kGramTile, next);
  }
}

// Three left panels, 24 KiB, stay in the first-level cache while the right ones pass.
void RunGramTiles(const GramTiles& p) {
  const std::int64_t group_end = p.group_begin + p.group_panels;
  for (std::int64_t l = 0; l < p.group_panels; l += 3) {
    double* out = p.tiles;
    for (std::int64_t q = p.right_begin; q < p.right_end;) {
      // Panels of the group that have tiles with q; beyond the group's last one all of them do.
      const std::int64_t lefts = Min(q + 1 - p.group_begin, p.group_panels);
      const bool two = kTileVectors == 2 && q + 1 < p.right_end && q + 1 >= group_end;
      two ? GramTilesOf<kTileVectors>(p, l, lefts, q, out) : GramTilesOf<1>(p, l, lefts, q, out);
      const std::int64_t taken = two ? 2 : 1;
      out += taken * lefts * kGramTile;
      q += taken;
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
    {WidenGram<float>, WidenGram<double>, WidenGram<Half>, WidenGram<BFloat16>},
    RunGramTiles,
    AccumulateGram,
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
