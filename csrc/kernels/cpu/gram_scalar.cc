// The Gram engine's inner loops as their formulas have them, for CPUs without a fused multiply-add:
// other bits than the vector units', where products do not fit a double.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gram_kernel.h"
#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

double Wide(double a) { return a; }
double Wide(float a) { return a; }
double Wide(Half a) { return FloatOf(a); }
double Wide(BFloat16 a) { return FloatOf(a); }

template <class T>
void Pack(const GramPack& p) {
  for (std::int64_t panel = 0; panel < p.panels; ++panel) {
    const std::int64_t first = (p.first_panel + panel) * kGramPanel;
    const std::int64_t columns = std::min(p.columns - first, kGramPanel);
    for (std::int64_t i = 0; i < p.rows; ++i) {
      const std::int64_t number = p.index != nullptr ? p.index[i] : i;
      const T* const row = static_cast<const T*>(p.data) + number * p.stride + first;
      const double s = p.weights != nullptr ? p.weights[i] : 1.0;
      for (std::int64_t c = 0; c < kGramPanel; ++c) {
        const double z = c < columns ? Wide(row[c]) * p.scale[first + c] + p.offset[first + c] : 0;
        const std::int64_t at = panel * kGramPanelSize + i * kGramPanel + c;
        p.right[at] = z;
        if (p.left != nullptr) p.left[at] = s * z;
        p.sum[panel * kGramPanel + c] += s * z;
        if (p.squares != nullptr) p.squares[panel * kGramPanel + c] += s * z * z;
      }
    }
  }
}

template <class T>
void Widen(const void* from, double* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = Wide(static_cast<const T*>(from)[i]);
}

void Tile(const double* left, const double* right, std::int64_t rows, double* tile) {
  double acc[kGramTile] = {};
  for (std::int64_t i = 0; i < rows; ++i, left += kGramPanel, right += kGramPanel) {
    for (int r = 0; r < kGramPanel; ++r) {
      for (int c = 0; c < kGramPanel; ++c) acc[r * kGramPanel + c] += left[r] * right[c];
    }
  }
  for (int i = 0; i < kGramTile; ++i) tile[i] += acc[i];
}

void Tiles(const GramTiles& p) {
  double* tile = p.tiles;
  for (std::int64_t q = p.right_begin; q < p.right_end; ++q) {
    for (std::int64_t l = 0; l < p.Lefts(q); ++l, tile += kGramTile) {
      Tile(p.left + l * kGramPanelSize, p.right + q * kGramPanelSize, p.rows, tile);
    }
  }
}

void Accumulate(const double* add, double* sum, double* error, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double total = sum[i] + add[i], added = total - sum[i];
    error[i] += (sum[i] - (total - added)) + (add[i] - added);
    sum[i] = total;
  }
}

constexpr GramKernels kGram = {
    {Pack<float>, Pack<double>, Pack<Half>, Pack<BFloat16>},
    {},  // no lanes
    nullptr,
    {Widen<float>, Widen<double>, Widen<Half>, Widen<BFloat16>},
    Tiles,
    Accumulate,
};

}  // namespace

const GramKernels& kScalarGram = kGram;

}  // namespace cpu
}  // namespace linreg_ops
