#include "kernels/cpu/plan.h"

#include <algorithm>
#include <cstdint>

namespace linreg_ops {
namespace cpu {
namespace {

constexpr std::int64_t kNarrow = 8;  // as in few_targets.h

// Sizes that hold on every CPU of the last ten years, and not the ones of the CPU at hand: tiles
// shape the sums, and so the bits. With the tile in use the next one comes into the first level:
// half of 32 KiB each, and a little more, so that 16 rows of 256 floats with their targets are one
// (with 8 rows, residuals fill half a vector: 0.58 of the bandwidth rather than 0.82 for k = 4).
constexpr std::int64_t kFirstLevelCache = 18 << 10;
constexpr std::int64_t kSecondLevelCache = 256 << 10;

// A descent transposes once what each step would transpose in registers, as long as the copy stays
// in the second-level cache: of 1000 x 10 floats a step takes 0.6 us rather than 1.2.
constexpr std::int64_t kPackedBytes = kSecondLevelCache;

constexpr std::int64_t kMaxSlots = 256;
// Less data than this is not worth a slot of its own.
constexpr std::int64_t kMinSlotBytes = 256 << 10;
// Roughly what one thread does in a nanosecond, and how many of them of work each thread must find.
// In a loop, where it has stayed since the last call, a second thread takes an eager call over 1.3
// MB from 37 to 28 us; alone, after a pause of 200 us, waking it makes 45 of those 37. In a descent
// the threads stay awake from step to step.
constexpr double kBytesPerNanosecond = 50;
constexpr double kFlopsPerNanosecond = 100;
constexpr double kNanosecondsPerWorker = 12'000;
constexpr double kNanosecondsPerWorkerOfStep = 5'000;

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return CeilDiv(a, b) * b; }

// A tile is read twice and its second use must hit the first-level cache, or the second where
// that would leave too few rows to share the loads of w and of the gradient. Many targets are bound
// by arithmetic and want long sums in registers: 8 targets of 256 features ran at 0.44 of the
// peak in tiles of 8 rows and at 0.60 in tiles of 124. 16 rows are the lanes of a vector of dots.
std::int64_t TileRows(std::int64_t row_bytes, std::int64_t d, std::int64_t k) {
  // As many rows as their columns, dots and residuals leave room for beside the next tile: with 512
  // four targets of two features took 1.7 times as long.
  if (d <= kNarrow) return k <= 4 ? 256 : 128;
  if (k > 4) {
    return std::clamp<std::int64_t>(kSecondLevelCache / 2 / row_bytes / 16 * 16, 16, 128);
  }
  const std::int64_t in_first = kFirstLevelCache / row_bytes;
  const std::int64_t in_second = kSecondLevelCache / row_bytes;
  if (in_first >= 8) return std::min<std::int64_t>(in_first / 8 * 8, 128);
  return std::clamp<std::int64_t>(in_second, 1, 8);
}

// Slots are the unit of parallel work. Each leaves a partial gradient in double, which costs
// 16·k bytes of traffic per column, so it should have enough rows to make that a few percent of
// reading X; but a matrix of few long rows is cut finer, to give every thread work.
std::int64_t SlotRows(const Shape& shape, std::int64_t x_size, std::int64_t row_bytes,
                      std::int64_t tile_rows) {
  const std::int64_t n = std::max<std::int64_t>(shape.n, 1);
  std::int64_t rows =
      std::max<std::int64_t>(512 / x_size * std::max<std::int64_t>(shape.k / 2, 1), 1);
  rows = std::min(rows, std::max<std::int64_t>(CeilDiv(n, 16), 16));
  rows = std::max(rows, kMinSlotBytes / row_bytes);
  rows = std::max(rows, CeilDiv(n, kMaxSlots));
  // Equal slots, made of whole tiles.
  rows = CeilDiv(n, CeilDiv(n, rows));
  return std::min(RoundUp(rows, tile_rows), RoundUp(n, 16));
}

}  // namespace

Plan PlanFewTargets(const Shape& shape, DType x_type, DType w_type, int threads, bool descent) {
  const std::int64_t d = shape.d, k = std::max<std::int64_t>(shape.k, 1);
  const std::int64_t x_size = static_cast<std::int64_t>(SizeOf(x_type));
  const std::int64_t c_size = x_type == DType::kFloat64 ? 8 : 4;
  const std::int64_t y_size = static_cast<std::int64_t>(SizeOf(w_type));
  const std::int64_t lanes = 64 / c_size;
  const std::int64_t row_bytes = std::max<std::int64_t>(d * x_size + k * y_size, 1);

  Plan plan = {};
  plan.tile_rows = TileRows(row_bytes, d, k);
  plan.slot_rows = SlotRows(shape, x_size, row_bytes, plan.tile_rows);
  const std::int64_t slots = std::max<std::int64_t>(CeilDiv(shape.n, plan.slot_rows), 1);
  plan.padded_d = RoundUp(d, d <= kNarrow ? 8 : lanes);
  plan.columns_per_task = std::max<std::int64_t>(RoundUp(CeilDiv(plan.padded_d, 256), 8), 4096);
  plan.stages = 2;
  plan.tasks[0] = static_cast<std::int32_t>(slots);
  plan.tasks[1] = static_cast<std::int32_t>(
      std::max<std::int64_t>(CeilDiv(plan.padded_d, plan.columns_per_task), 1));
  const double time =
      static_cast<double>(shape.n) *
      std::max(static_cast<double>(row_bytes) / kBytesPerNanosecond,
               4.0 * static_cast<double>(d) * static_cast<double>(k) / kFlopsPerNanosecond);
  const double worth = time / (descent ? kNanosecondsPerWorkerOfStep : kNanosecondsPerWorker);
  plan.workers = static_cast<int>(
      std::clamp<double>(std::min(worth, static_cast<double>(slots)), 1, std::max(threads, 1)));

  std::int64_t bytes = 0;
  const auto reserve = [&bytes](std::int64_t size) {
    const std::int64_t offset = bytes;
    bytes += RoundUp(size, 64);
    return offset;
  };
  plan.weights_offset = reserve(d <= kNarrow ? 0 : (k > 4 ? 8 : k) * plan.padded_d * c_size);
  plan.partial_stride = RoundUp(2 * k, 8) + k * plan.padded_d;
  plan.partials_offset = reserve(slots * plan.partial_stride * 8);
  const std::int64_t tile = RoundUp(plan.tile_rows, 16);
  const std::int64_t buffers = k * tile * (8 + 2 * c_size) + tile * c_size;
  const std::int64_t sums =
      d <= kNarrow ? d * tile * c_size + k * d * lanes * 8 : k * plan.padded_d * c_size;
  plan.scratch_bytes = RoundUp(buffers + sums, 64);
  plan.scratch_offset = reserve(plan.workers * plan.scratch_bytes);
  const std::int64_t packed_rows = RoundUp(shape.n, lanes);
  const bool packed = descent && k == 1 && d > 0 && d <= lanes && x_size == c_size &&
                      packed_rows <= kPackedBytes / (d * c_size);
  plan.packed_offset = packed ? reserve(packed_rows * d * c_size) : -1;
  plan.workspace_bytes = bytes;
  return plan;
}

}  // namespace cpu
}  // namespace linreg_ops
