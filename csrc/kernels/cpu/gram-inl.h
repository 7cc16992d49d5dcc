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

// Columns of a left panel by right panels: 16 vector registers hold 8 accumulators beside their
// operands, 32 hold 16.
constexpr int kGramTileRows = kAccumulators >= 24 ? 8 : 4;
constexpr int kGramTileVectors = kAccumulators >= 24 ? 2 : 1;

template <class T>
inline F64x8 LoadFirstF64(const T* p, int m) {
  if constexpr (std::is_same_v<T, double>) {
    return LoadFirst(p, m);
  } else {
    return Low(LoadFirst(p, m));
  }
}

// One panel. kWhole: all of its columns exist, so that no lane has to be masked.
template <class T, bool kWhole, bool kWeights>
void PackPanel(const GramPack& p, std::int64_t panel) {
  const std::int64_t number = p.first_panel + panel;
  const T* const data = static_cast<const T*>(p.data) + number * kGramPanel;
  const T* const end = static_cast<const T*>(p.end);
  const int columns = static_cast<int>(p.columns - number * kGramPanel);
  const F64x8 scale = Load(p.scale + number * kGramPanel);
  const F64x8 offset = Load(p.offset + number * kGramPanel);
  double* const right = p.right + panel * kGramPanelSize;
  double* const left = kWeights && p.left != nullptr ? p.left + panel * kGramPanelSize : nullptr;
  F64x8 sum = Load(p.sum + panel * kGramPanel);
  F64x8 squares = p.squares != nullptr ? Load(p.squares + panel * kGramPanel) : Zero(F64x8{});
  for (std::int64_t i = 0; i < p.rows; ++i) {
    const T* const row = data + (p.index != nullptr ? p.index[i] : i) * p.stride;
    F64x8 z;
    if (kWhole) {
      z = Fma(LoadF64(row), scale, offset);
    } else if (end - row >= kGramPanel) {
      z = KeepFirst(Fma(LoadF64(row), scale, offset), columns);
    } else {
      z = Fma(LoadFirstF64(row, columns), scale, offset);
    }
    const F64x8 sz = kWeights ? Mul(z, Set(p.weights[i])) : z;
    Store(right + i * kGramPanel, z);
    if (left != nullptr) Store(left + i * kGramPanel, sz);
    sum = Add(sum, sz);
    if (p.squares != nullptr) squares = Fma(sz, z, squares);
  }
  Store(p.sum + panel * kGramPanel, sum);
  if (p.squares != nullptr) Store(p.squares + panel * kGramPanel, squares);
}

template <class T>
void PackGram(const GramPack& p) {
  for (std::int64_t panel = 0; panel < p.panels; ++panel) {
    const bool whole = (p.first_panel + panel + 1) * kGramPanel <= p.columns;
    if (p.weights != nullptr) {
      whole ? PackPanel<T, true, true>(p, panel) : PackPanel<T, false, true>(p, panel);
    } else {
      whole ? PackPanel<T, true, false>(p, panel) : PackPanel<T, false, false>(p, panel);
    }
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

// All columns of a left panel by N right panels.
template <int N>
void GramTile(const double* left, std::int64_t columns, const double* right, std::int64_t rows,
              bool add, double* tile, std::int64_t next_tile) {
  for (std::int64_t from = 0; from < kGramPanel; from += kGramTileRows) {
    F64x8 acc[kGramTileRows][N];
#pragma GCC unroll kUnroll
    for (int r = 0; r < kGramTileRows; ++r) {
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) acc[r][v] = Zero(F64x8{});
    }
    Ahead nothing = {nullptr, 0};
    if (from < columns) {
      Product<F64x8, kGramTileRows, N, true>(acc, left + from, kGramPanel, right, kGramPanel,
                                             (N - 1) * kGramPanelSize, rows, nothing);
    }
#pragma GCC unroll kUnroll
    for (int r = 0; r < kGramTileRows; ++r) {
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) {
        double* const to = tile + v * next_tile + (from + r) * kGramPanel;
        Store(to, add ? Add(Load(to), acc[r][v]) : acc[r][v]);
      }
    }
  }
}

void RunGramTiles(const GramTiles& p) {
  double* out = p.tiles;
  const std::int64_t group_end = p.group_begin + p.group_panels;
  for (std::int64_t q = p.right_begin; q < p.right_end;) {
    // Panels of the group that have tiles with q; beyond the group's last one all of them do.
    const std::int64_t lefts = Min(q + 1 - p.group_begin, p.group_panels);
    const std::int64_t both = q + 1 < p.right_end && q + 1 >= group_end ? kGramTileVectors : 1;
    for (std::int64_t l = 0; l < lefts; ++l) {
      const double* const left = p.left + l * kGramPanelSize;
      const double* const right = p.right + q * kGramPanelSize;
      const std::int64_t columns = l + 1 == p.group_panels ? p.last_columns : kGramPanel;
      double* const tile = out + l * kGramTile;
      if (both == 1) {
        GramTile<1>(left, columns, right, p.rows, p.add, tile, 0);
      } else {
        GramTile<kGramTileVectors>(left, columns, right, p.rows, p.add, tile, lefts * kGramTile);
      }
    }
    out += both * lefts * kGramTile;
    q += both;
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
