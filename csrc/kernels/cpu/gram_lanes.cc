#include "kernels/cpu/gram_lanes.h"

#include <algorithm>
#include <cstdint>

namespace linreg_ops {
namespace cpu {
namespace {

// For each number of columns of X the most columns of Y that take longer in panels, measured on
// Zen 3. Those of half and full panels are slow in lanes: their runs lie 4096 bytes apart, or a
// multiple of it, and share a set of the first-level cache.
constexpr std::int64_t kMostTargets[] = {7, 7, 7, 7, 5, 4, 4, 3, 1, 7, 6, 5, 4, 3, 2, 1};

bool FewColumns(const GramLayout& layout) {
  constexpr std::int64_t kColumns = sizeof(kMostTargets) / sizeof(kMostTargets[0]);
  return layout.d < kColumns && layout.k <= kMostTargets[layout.d];
}

// Rows of each run to take at a time: 16 KiB, which stay in the first-level cache.
std::int64_t RowsAtATime(std::int64_t columns) {
  constexpr std::int64_t kNumbers = 256;
  std::int64_t rows = kGramRunRows;
  while (rows > 8 && rows * columns > kNumbers) rows /= 2;
  return rows;
}

// Sums that a block has, in the order of GramLaneSums.
std::int64_t SumsOf(const GramLayout& layout) {
  const std::int64_t d = layout.d, k = layout.k;
  return d * (d + 1) / 2 + d * k + k + d + k;
}

}  // namespace

std::int64_t GramLanes::ScratchBytes(const GramLayout& layout) {
  if (!FewColumns(layout)) return 0;
  const std::int64_t columns = layout.d + layout.k;
  const std::int64_t of_rows = RowsAtATime(columns) * (columns + 1);  // and a weight
  return (of_rows + SumsOf(layout)) * kGramLanes * static_cast<std::int64_t>(sizeof(double));
}

bool GramLanes::Take(const GramBlock& block) const {
  return kernels_.lane_sums != nullptr && FewColumns(layout_) && block.index == nullptr &&
         block.rows == kGramBlockRows && input_.x.stride == layout_.d &&
         input_.y.stride == layout_.k;
}

void GramLanes::Sum(const GramBlock& block, const double* weights, double* scratch,
                    double* slot) const {
  const std::int64_t columns = layout_.d + layout_.k, rows = RowsAtATime(columns);
  double* const lanes = scratch;
  double* const of_weights = lanes + rows * columns * kGramLanes;
  double* const sums = of_weights + rows * kGramLanes;
  std::fill(slot, slot + layout_.weight(), 0.0);
  std::fill(sums, sums + SumsOf(layout_) * kGramLanes, 0.0);
  const double one = 1.0, none = -0.0;
  for (std::int64_t row = 0; row < kGramRunRows; row += rows) {
    ToLanes(input_.x, block.first + row, rows, input_.x_scale, input_.x_offset, lanes, columns);
    ToLanes(input_.y, block.first + row, rows, input_.y_scale, input_.y_offset,
            lanes + layout_.d * kGramLanes, columns);
    if (weights != nullptr) {
      const GramArray array = {weights, DType::kFloat64, 1, nullptr};
      ToLanes(array, row, rows, &one, &none, of_weights, 1);
    }
    kernels_.lane_sums(
        {lanes, weights == nullptr ? nullptr : of_weights, rows, layout_.d, columns, sums});
  }
  AddRuns(sums, slot);
}

void GramLanes::ToLanes(const GramArray& array, std::int64_t row, std::int64_t rows,
                        const double* scale, const double* offset, double* lanes,
                        std::int64_t stride) const {
  if (array.stride == 0) return;
  const char* const data = static_cast<const char*>(array.data) +
                           row * array.stride * static_cast<std::int64_t>(SizeOf(array.type));
  kernels_.to_lanes[static_cast<int>(array.type)](
      {data, kGramRunRows * array.stride, rows, array.stride, scale, offset, lanes, stride});
}

// Adds up the runs, in order, and puts each sum in its place. There are one or two panels of each
// array, and so one group.
void GramLanes::AddRuns(const double* sums, double* slot) const {
  const auto next = [&sums] {
    double sum = sums[0];
    for (std::int64_t run = 1; run < kGramLanes; ++run) sum += sums[run];
    sums += kGramLanes;
    return sum;
  };
  // The sum of left column i of group g and right column j of X.
  const auto at = [&](std::int64_t g, std::int64_t i, std::int64_t j) -> double& {
    const std::int64_t tile = layout_.TilesBefore(g, j / kGramPanel) + i / kGramPanel;
    return slot[tile * kGramTile + i % kGramPanel * kGramPanel + j % kGramPanel];
  };
  const std::int64_t d = layout_.d, k = layout_.k;
  for (std::int64_t i = 0; i < d; ++i) {
    slot[layout_.x_sum() + i] = next();
    for (std::int64_t j = i; j < d; ++j) at(0, i, j) = next();
    for (std::int64_t t = 0; t < k; ++t) at(1, t, i) = next();
  }
  for (std::int64_t t = 0; t < k; ++t) {
    slot[layout_.y_sum() + t] = next();
    slot[layout_.squares() + t] = next();
  }
}

}  // namespace cpu
}  // namespace linreg_ops
