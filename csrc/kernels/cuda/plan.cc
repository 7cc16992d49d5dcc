#include "kernels/cuda/plan.h"

#include <algorithm>
#include <limits>

namespace linreg_ops {
namespace cuda {
namespace {

// A tile is large enough that its barriers cost little beside its bytes (at 4.8 TB/s a
// multiprocessor takes in 20 bytes a clock, so 16 KB last 800 clocks), and small enough that
// several are in flight: 26 KB a multiprocessor cover 0.7 µs of latency at that rate, and two
// blocks with three stages ahead of each have 96 KB.
constexpr std::int64_t kRowsTileBytes = 16 << 10;
constexpr std::int64_t kColumnsTileBytes = 32 << 10;
constexpr std::int64_t kSmallestTileBytes = 4 << 10;
constexpr int kMaxStages = 8;
// Of a descent: the barriers have room for no more.
constexpr int kMaxDescentStages = 16;
// What one block reads in about the time that a second launch, or a grid barrier, costs.
constexpr std::int64_t kSingleBlockBytes = 128 << 10;
constexpr std::int64_t kBarrierBytes = 128;  // one 8-byte mbarrier per stage
constexpr std::int64_t kAlign = 128;

std::int64_t AccumulatorBytes(DType type) { return IsWide(type) ? 8 : 4; }

struct RowBytes {
  std::int64_t x, y, s;
  std::int64_t all() const { return x + y + s; }
};

RowBytes BytesOfRow(const Data& data) {
  const auto w_size = static_cast<std::int64_t>(SizeOf(data.w_type));
  return {data.shape.d * static_cast<std::int64_t>(SizeOf(data.x_type)),
          data.y ? data.shape.k * w_size : 0, data.sample_weight ? w_size : 0};
}

// Lays out shared memory for tiles of plan->rows_per_tile rows with the most stages that `budget`
// holds; false if not even two fit.
bool FitShared(const Data& data, std::int64_t budget, int max_stages, FusedPlan* plan) {
  const std::int64_t acc = AccumulatorBytes(data.x_type);
  const std::int64_t rows = plan->rows_per_tile;
  const std::int64_t all_targets = plan->targets * plan->target_groups;
  const RowBytes row = BytesOfRow(data);
  std::int64_t at = kBarrierBytes;
  const auto take = [&at](std::int64_t bytes) {
    const std::int64_t start = at;
    at += AlignUp(bytes, kAlign);
    return start;
  };
  plan->weights_offset = take((data.shape.d + 1) * all_targets * acc);  // + 1: the intercept's
  if (plan->path == Path::kColumns) {
    plan->dots_offset = take(plan->dot_warps * rows * all_targets * acc);
    plan->residuals_offset = take(rows * all_targets * acc);
  }
  plan->reduce_offset = take(std::max<std::int64_t>(plan->vector * acc, 8) * kThreads);
  plan->stages_offset = at;
  // A tile keeps its address modulo 16, so that 16-byte copies work for rows at any address.
  const auto padded = [](std::int64_t bytes) { return bytes ? AlignUp(bytes + 32, kAlign) : 0; };
  plan->y_offset = padded(rows * row.x);
  plan->s_offset = plan->y_offset + padded(rows * row.y);
  plan->stage_bytes = plan->s_offset + padded(rows * row.s);
  if (at > budget) return false;
  const std::int64_t fit =
      plan->stage_bytes ? (budget - at) / plan->stage_bytes : std::int64_t{max_stages};
  plan->stages = static_cast<int>(std::min<std::int64_t>(fit, max_stages));
  plan->shared_bytes = at + plan->stages * plan->stage_bytes;
  return plan->stages >= 2;
}

// Threads and targets; false if the path's accumulators do not hold the shape.
bool ChooseThreads(const Data& data, Path path, FusedPlan* plan) {
  const std::int64_t d = data.shape.d;
  const int k = static_cast<int>(PowerOfTwoAbove(data.shape.k));
  plan->path = path;
  plan->targets = path == Path::kRows ? std::min(k, 4) : k;
  plan->target_groups = k / plan->targets;
  plan->vector = VectorWidth(data.x_type, path, plan->targets);
  plan->vector_columns = d % plan->vector == 0;
  const std::int64_t vectors = CeilDiv(d, plan->vector);
  const std::int64_t lanes = PowerOfTwoAbove(vectors);
  if (path == Path::kRows) {
    // The lanes of a row sum by shuffles, log2(lanes) for each target: with 4 targets more than 8
    // lanes would keep the shuffle unit busier than memory.
    if (lanes * plan->target_groups > 32 || (plan->targets >= 4 && lanes > 8)) return false;
    plan->column_lanes = static_cast<int>(lanes);
    return true;
  }
  plan->column_lanes = static_cast<int>(std::min<std::int64_t>(lanes, kThreads));
  // Two vectors a lane before another warp joins in.
  plan->dot_warps =
      static_cast<int>(PowerOfTwoAbove(std::min<std::int64_t>(CeilDiv(vectors, 64), kWarps)));
  return vectors <= std::int64_t{plan->column_lanes} * ColumnVectors(data.x_type, plan->targets);
}

// For a descent: tiles of a size with which every block's share of the rows stays in its shared
// memory, so that X is read once whatever the number of steps; false if it cannot. As few tiles as
// possible: each costs barriers on every step, and padding. An H200's 132 blocks hold 227 KB each,
// less 5 KB of weights, sums and padding for d = 60 and one target, so X of up to 29.5 MB beside
// its y. The registers, as large again, hold the accumulators and are not needed for that.
bool FitResident(const Data& data, const Device& device, std::int64_t most_blocks,
                 FusedPlan* plan) {
  const std::int64_t row_bytes = std::max<std::int64_t>(1, BytesOfRow(data).all());
  const std::int64_t share = CeilDiv(data.shape.n, most_blocks);
  if (share > device.shared_per_block / row_bytes) return false;
  const std::int64_t least = std::max<std::int64_t>(1, kSmallestTileBytes / row_bytes);
  for (int tiles = 1; tiles <= kMaxDescentStages; ++tiles) {
    plan->rows_per_tile = static_cast<int>(
        std::max<std::int64_t>(1, std::min(std::max(least, CeilDiv(share, tiles)), data.shape.n)));
    if (FitShared(data, device.shared_per_block, std::max(tiles, 2), plan) &&
        plan->stages >= tiles) {
      plan->blocks = 1;
      return true;
    }
  }
  return false;
}

// The streaming plan's tiles, halved until they fit; false if not even one row does.
bool FitStreaming(const Data& data, const Device& device, std::int64_t rows, int blocks_each,
                  int max_stages, FusedPlan* plan) {
  const std::int64_t half = std::min(device.shared_per_block,
                                     device.shared_per_multiprocessor / 2 - device.shared_reserved);
  for (;; rows = CeilDiv(rows, 2)) {
    plan->rows_per_tile = static_cast<int>(rows);
    plan->blocks = blocks_each;
    if (blocks_each == 2 && FitShared(data, half, max_stages, plan) && plan->stages >= 3) {
      return true;
    }
    plan->blocks = 1;
    if (FitShared(data, device.shared_per_block, max_stages, plan)) return true;
    if (rows == 1) return false;
  }
}

// Rows of a tile, and stages; plan->blocks becomes that of a multiprocessor. False if no block can
// hold a row.
bool ChooseTiles(const Data& data, const Device& device, bool descent, bool small,
                 FusedPlan* plan) {
  const std::int64_t n = data.shape.n;
  const bool rows_path = plan->path == Path::kRows;
  const int blocks_each =
      descent ? 1 : BlocksPerMultiprocessor(data.x_type, plan->path, plan->targets);
  const std::int64_t most_blocks = small ? 1 : std::int64_t{device.multiprocessors} * blocks_each;
  if (descent && FitResident(data, device, most_blocks, plan)) return true;

  const std::int64_t row_bytes = std::max<std::int64_t>(1, BytesOfRow(data).all());
  std::int64_t rows = (rows_path || descent ? kRowsTileBytes : kColumnsTileBytes) / row_bytes;
  // A few tiles for every block, as far as that leaves them large enough.
  rows = std::min(rows, std::max(kSmallestTileBytes / row_bytes, CeilDiv(n, most_blocks)));
  rows = std::max<std::int64_t>(1, std::min(rows, n));
  // Rows that keep every thread busy.
  const int round = (rows_path ? kThreads / (plan->column_lanes * plan->target_groups)
                               : kWarps / plan->dot_warps) *
                    RowsAtATime(data.x_type, plan->path, plan->targets);
  if (rows > round) rows -= rows % round;
  return FitStreaming(data, device, rows, blocks_each, descent ? kMaxDescentStages : kMaxStages,
                      plan);
}

}  // namespace

FusedPlan PlanFused(const Data& data, const Device& device, Purpose purpose) {
  const Shape& shape = data.shape;
  FusedPlan plan;
  FusedPlan chunks;
  chunks.path = Path::kChunks;
  constexpr std::int64_t kWidest = 1 << 20;  // of any fused plan, so that int holds a row's sizes
  if (shape.k > 16 || shape.d > kWidest) return chunks;
  if (!ChooseThreads(data, Path::kRows, &plan) && !ChooseThreads(data, Path::kColumns, &plan)) {
    return chunks;
  }
  const std::int64_t row_bytes = std::max<std::int64_t>(1, BytesOfRow(data).all());
  const bool small = shape.n <= kSingleBlockBytes / row_bytes;
  if (!ChooseTiles(data, device, purpose == Purpose::kDescent, small, &plan)) return chunks;
  plan.tiles = CeilDiv(shape.n, plan.rows_per_tile);
  plan.blocks = static_cast<int>(std::max<std::int64_t>(
      1, std::min(plan.tiles, small ? 1 : std::int64_t{device.multiprocessors} * plan.blocks)));

  const int groups = plan.column_lanes * (plan.path == Path::kRows ? plan.target_groups : 1);
  const std::int64_t rows_per_thread = CeilDiv(plan.rows_per_tile, kThreads / groups);
  plan.segment_tiles = IsWide(data.x_type)
                           ? std::numeric_limits<std::int64_t>::max()
                           : std::max<std::int64_t>(1, kSegmentRows / rows_per_thread);
  return plan;
}

ChunkPlan PlanChunks(const Data& data, const Device& device) {
  const Shape& shape = data.shape;
  ChunkPlan plan;
  // Half of L2 for X, so that its second use finds it; 16-bit rows may be widened to float32.
  const std::int64_t x_size = std::max<std::int64_t>(4, SizeOf(data.x_type));
  const std::int64_t row_bytes = x_size * std::max<std::int64_t>(1, std::max(shape.d, shape.k));
  const std::int64_t l2 = std::max<std::int64_t>(device.l2_bytes, 4 << 20);
  plan.rows =
      std::max<std::int64_t>(1, std::min(shape.n, std::max<std::int64_t>(32, l2 / 2 / row_bytes)));
  const std::int64_t column_blocks =
      std::max<std::int64_t>(1, CeilDiv(shape.d, kThreads) * CeilDiv(shape.k, 4));
  plan.row_splits = std::max<std::int64_t>(
      1, std::min<std::int64_t>(16, 4 * std::int64_t{device.multiprocessors} / column_blocks));
  plan.residual_blocks = std::max(1, device.multiprocessors);
  return plan;
}

bool SuitsGemm(const Shape& shape) {
  constexpr std::int64_t kFromTargets = 5;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  return shape.n > 0 && shape.d > 0 && shape.k >= kFromTargets &&
         std::max(shape.d, shape.k) <= kMost;
}

}  // namespace cuda
}  // namespace linreg_ops
