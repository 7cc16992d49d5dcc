// How the sums of one fold, or of one block, lie: first the tiles, in the order that gram_kernel.h
// says, then the margins: Σ s z of each panel of X, Σ s t and Σ s t² of each panel of Y, and Σ s.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gram_kernel.h"

namespace linreg_ops {
namespace cpu {

struct GramLayout {
  GramLayout(std::int64_t columns_of_x, std::int64_t columns_of_y)
      : d(columns_of_x),
        k(columns_of_y),
        x_panels((d + kGramPanel - 1) / kGramPanel),
        panels(x_panels + (k + kGramPanel - 1) / kGramPanel),
        groups((x_panels + kGramGroup - 1) / kGramGroup) {}

  const std::int64_t d, k;
  const std::int64_t x_panels, panels, groups;

  std::int64_t y_panels() const { return panels - x_panels; }
  std::int64_t GroupPanels(std::int64_t g) const {
    return std::min(x_panels - g * kGramGroup, kGramGroup);
  }

  // The first tile of group g and right panel q, counted in tiles.
  std::int64_t TilesBefore(std::int64_t g, std::int64_t q) const {
    const std::int64_t all = kGramGroup * (kGramGroup + 1) / 2;  // of a group by itself
    const std::int64_t groups_before = g * (all + kGramGroup * (panels - kGramGroup)) -
                                       kGramGroup * kGramGroup * (g * (g - 1) / 2);
    const std::int64_t lefts = g < groups ? GroupPanels(g) : 0;
    const std::int64_t rights = q - g * kGramGroup, triangle = std::min(rights, lefts);
    return groups_before + triangle * (triangle + 1) / 2 + (rights - triangle) * lefts;
  }
  std::int64_t tiles() const { return groups == 0 ? 0 : TilesBefore(groups - 1, panels); }

  // In doubles.
  std::int64_t x_sum() const { return tiles() * kGramTile; }
  std::int64_t y_sum() const { return x_sum() + x_panels * kGramPanel; }
  std::int64_t squares() const { return y_sum() + y_panels() * kGramPanel; }
  std::int64_t weight() const { return squares() + y_panels() * kGramPanel; }
  std::int64_t size() const { return weight() + kGramPanel; }
  std::int64_t margins() const { return size() - x_sum(); }
};

}  // namespace cpu
}  // namespace linreg_ops
