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
        x_groups((x_panels + kGramGroup - 1) / kGramGroup),
        groups(x_groups + (y_panels() + kGramGroup - 1) / kGramGroup) {}

  const std::int64_t d, k;
  const std::int64_t x_panels, panels;
  const std::int64_t x_groups, groups;  // of left panels: those of X, then those of Y

  std::int64_t y_panels() const { return panels - x_panels; }

  // A group g: whether its panels are X's, the first one's number in the order X, Y, how many, and
  // how many columns the last has; and the first of the right panels, all of which are X's.
  bool OfX(std::int64_t g) const { return g < x_groups; }
  std::int64_t GroupBegin(std::int64_t g) const {
    return OfX(g) ? g * kGramGroup : x_panels + (g - x_groups) * kGramGroup;
  }
  std::int64_t GroupPanels(std::int64_t g) const {
    return std::min((OfX(g) ? x_panels : panels) - GroupBegin(g), kGramGroup);
  }
  std::int64_t LastColumns(std::int64_t g) const {
    const std::int64_t last = GroupBegin(g) + GroupPanels(g) - 1;
    return std::min(OfX(g) ? d - last * kGramPanel : k - (last - x_panels) * kGramPanel,
                    kGramPanel);
  }
  std::int64_t RightBegin(std::int64_t g) const { return OfX(g) ? GroupBegin(g) : 0; }

  // With one group of X on the left of X and of Y the tiles of Y are transposed; in the same order
  // where either array has one panel, and else put in order, if that is for one thread to do. That
  // is how they are computed unless it takes more multiply-adds.
  bool XOnTheLeft() const {
    return x_groups == 1 && (SameOrder() || !Large()) && d * y_panels() <= k * x_panels;
  }
  bool SameOrder() const { return x_panels == 1 || y_panels() == 1; }
  // More than half a second-level cache: threads share a block.
  bool Large() const { return size() > (512 << 10) / static_cast<std::int64_t>(sizeof(double)); }
  std::int64_t GroupsToMultiply() const { return XOnTheLeft() ? 1 : groups; }
  std::int64_t RightEnd() const { return XOnTheLeft() ? panels : x_panels; }

  // The first tile of group g and right panel q, counted in tiles.
  std::int64_t TilesBefore(std::int64_t g, std::int64_t q) const {
    if (!OfX(g)) {
      return x_tiles() + (g - x_groups) * kGramGroup * x_panels + q * GroupPanels(g);
    }
    const std::int64_t all = kGramGroup * (kGramGroup + 1) / 2;  // of a group by itself
    const std::int64_t groups_before = g * (all + kGramGroup * (x_panels - kGramGroup)) -
                                       kGramGroup * kGramGroup * (g * (g - 1) / 2);
    const std::int64_t lefts = GroupPanels(g);
    const std::int64_t rights = q - g * kGramGroup, triangle = std::min(rights, lefts);
    return groups_before + triangle * (triangle + 1) / 2 + (rights - triangle) * lefts;
  }
  std::int64_t x_tiles() const { return x_panels * (x_panels + 1) / 2; }
  std::int64_t tiles() const { return x_tiles() + x_panels * y_panels(); }

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
