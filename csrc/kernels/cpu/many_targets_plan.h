// What the cost model of many_targets.h decides. Offsets are bytes into the workspace.
#pragma once

#include <cstdint>

namespace linreg_ops {
namespace cpu {

constexpr std::int64_t kManyTargetsGroup = 8;  // panels of R that a slot's worker keeps at a time

struct ManyTargetsPlan {
  bool slots;                // the rows in slots rather than in rounds: see many_targets.h
  std::int64_t span_rows;    // rows of a slot, or of a round
  std::int64_t chunk_rows;   // rows between the two uses of which X stays in the cache
  std::int64_t flush_rows;   // slots: rows of one chain of sums of the gradient, in whole chunks
  std::int64_t depth;        // features of one chain of sums of a residual
  std::int64_t packed_from;  // the first panel of W that is packed

  // Rounds: the tasks of a stage.
  std::int64_t block_rows;           // a residual task: rows ...
  std::int64_t panels_per_task;      // ... by panels of W
  std::int64_t features_per_task;    // a gradient task: features ...
  std::int64_t panels_per_gradient;  // ... by panels of R

  // Slots: features of one task of the reduction.
  std::int64_t features_per_reduction;

  std::int64_t x_stride;  // of X as the tiles read it: copied to the compute type, or d in place
  std::int64_t weights_offset;    // C [panels][d][panel]
  std::int64_t bias_offset;       // C [panels · panel]
  std::int64_t x_offset;          // rounds: C [2][span_rows][x_stride], where X is copied
  std::int64_t residuals_offset;  // rounds: C [panels][span_rows][panel]
  std::int64_t grads_offset;      // double: slots [slots][...], rounds: [panels][d][panel]
  std::int64_t slot_stride;       // doubles
  std::int64_t sums_offset;       // double [slots or blocks of a round, + 1][2][panels · panel]
  std::int64_t scratch_offset;    // [workers][scratch_bytes]
  std::int64_t scratch_bytes;
};

}  // namespace cpu
}  // namespace linreg_ops
