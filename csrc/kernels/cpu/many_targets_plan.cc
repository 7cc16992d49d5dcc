// The cost model of many_targets.h.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/plan.h"

namespace linreg_ops {
namespace cpu {
namespace {

// A chain of this many rows: its two factors' panels fill the first-level cache, and adding it to
// the gradient in double costs 2%. A multiple of the rows of every tile.
constexpr std::int64_t kChunkRows = 252;
// A slot's chunk, with the next one beside it, stays in the second-level cache: 16 targets of 1000
// features, 252 rows of which are 1 MB, took 7.1 ms for 128 MiB on two cores, and 6.0 in chunks of
// 48 or 60. Fewer rows lose more to the ends of their tiles.
constexpr std::int64_t kChunkBytes = 256 << 10;
constexpr std::int64_t kMinChunkRows = 24;
constexpr std::int64_t kDepth = 256;
// Up to this many elements of the gradient, rows go in slots: 4-8% faster than rounds on one core,
// from 256k elements on the gradients of slots would take more than the rest of the workspace.
constexpr std::int64_t kSlotElements = 128 << 10;
// The slots' gradients take this many bytes, but there are eight slots at least.
constexpr std::int64_t kSlotsBytes = 4 << 20;
constexpr std::int64_t kRoundElements = 1 << 20;  // of R, and of X where it is copied
constexpr std::int64_t kTaskFlops = 4'000'000;    // 15 microseconds
constexpr std::int64_t kWorkerFlops = 4'000'000;

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return CeilDiv(a, b) * b; }

// `total` in equal parts of at most `most`, each a multiple of `unit`.
std::int64_t EqualParts(std::int64_t total, std::int64_t most, std::int64_t unit) {
  const std::int64_t parts = std::max<std::int64_t>(CeilDiv(total, most), 1);
  return std::max<std::int64_t>(RoundUp(CeilDiv(total, parts), unit), unit);
}

}  // namespace

Plan PlanManyTargets(const Shape& shape, DType x_type, DType w_type, int threads) {
  const std::int64_t n = shape.n, d = shape.d, k = shape.k;
  const std::int64_t c_size = x_type == DType::kFloat64 ? 8 : 4;
  const std::int64_t lanes = 64 / c_size, panel = 2 * lanes, panels = CeilDiv(k, panel);
  const bool narrow_x = SizeOf(x_type) == 2;
  (void)w_type;

  Plan plan = {};
  ManyTargetsPlan& m = plan.many;
  m.slots = d > 0 && d * k <= kSlotElements && n >= 8 * kChunkRows;
  m.depth = EqualParts(d, kDepth, 4);
  m.packed_from = n <= 24 ? k / panel : 0;
  // Rows a power of two apart fall on each other in the caches: 208 instead of 230 GFLOP/s a core
  // for 1024 features and targets.
  const bool collide = !m.slots && n >= kChunkRows && d > 0 && d * c_size % 2048 == 0;
  m.x_stride = narrow_x || (m.slots && d < lanes) ? RoundUp(d, lanes) : d;
  if (collide) m.x_stride += lanes;
  const bool copied = narrow_x || m.x_stride != d;

  std::int64_t bytes = 0;
  const auto reserve = [&bytes](std::int64_t size) {
    const std::int64_t offset = bytes;
    bytes += RoundUp(size, 64);
    return offset;
  };
  m.weights_offset = reserve((panels - m.packed_from) * d * panel * c_size);
  m.bias_offset = reserve(panels * panel * c_size);
  plan.tasks[0] = static_cast<std::int32_t>(std::clamp<std::int64_t>(d * k / (64 << 10), 1, 64));
  // Slots compute the gradient in whole vectors of features: by its flops alone, a problem of one
  // feature by 16 targets had one worker until it took 600 us.
  const std::int64_t features = m.slots ? std::max(d, lanes) : d;
  const double flops =
      4.0 * static_cast<double>(n) * static_cast<double>(features) * static_cast<double>(k);

  std::int64_t sums;
  if (m.slots) {
    const std::int64_t slot_bytes = RoundUp(d, panel) * k * 8;
    std::int64_t slots = std::clamp<std::int64_t>(kSlotsBytes / slot_bytes, 8, 64);
    slots = std::min(slots, n / kChunkRows / 4 * 4);
    m.span_rows = CeilDiv(n, slots);
    slots = CeilDiv(n, m.span_rows);
    const std::int64_t in_cache =
        std::clamp<std::int64_t>(kChunkBytes / (d * c_size), kMinChunkRows, kChunkRows);
    m.chunk_rows = EqualParts(m.span_rows, in_cache, 1);
    m.flush_rows = kChunkRows;
    m.features_per_reduction =
        panel * std::max<std::int64_t>(1, d * k / 4096 > 0 ? d / panel / (d * k / 4096) : d);
    m.slot_stride = slot_bytes / 8;
    m.grads_offset = reserve(slots * slot_bytes);
    m.scratch_bytes = (kManyTargetsGroup * m.chunk_rows * panel + RoundUp(m.chunk_rows, lanes) +
                       m.slot_stride + m.chunk_rows * m.x_stride) *
                      c_size;
    plan.stages = 3;
    plan.tasks[1] = static_cast<std::int32_t>(slots);
    plan.tasks[2] = static_cast<std::int32_t>(CeilDiv(d, m.features_per_reduction));
    sums = slots;
  } else {
    const std::int64_t most =
        std::max<std::int64_t>(kRoundElements / std::max(k, copied ? d : 0) / kChunkRows, 1) *
        kChunkRows;
    m.span_rows = EqualParts(n, std::min<std::int64_t>(most, 4 * kChunkRows), 12);
    m.chunk_rows = EqualParts(m.span_rows, kChunkRows, 12);
    m.span_rows = RoundUp(m.span_rows, m.chunk_rows);
    const std::int64_t rounds = std::max<std::int64_t>(CeilDiv(n, m.span_rows), 1);
    m.block_rows = EqualParts(m.span_rows, kChunkRows / 2, 12);
    const std::int64_t blocks = CeilDiv(m.span_rows, m.block_rows);
    // Panels and features of a task: enough to be worth claiming.
    const double panel_flops = 2.0 * m.block_rows * std::max<std::int64_t>(d, 1) * panel;
    m.panels_per_task = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(kTaskFlops / panel_flops), 1, std::max<std::int64_t>(panels, 1));
    m.panels_per_task = std::min<std::int64_t>(m.panels_per_task, kManyTargetsGroup);
    m.panels_per_task =
        std::max(m.panels_per_task, CeilDiv(blocks * panels, Plan::kMaxTasks - blocks));
    const std::int64_t grouped =
        std::max<std::int64_t>(std::min<std::int64_t>(panels, kManyTargetsGroup), 1);
    m.panels_per_gradient = std::max(grouped, CeilDiv(panels, 4096));
    const std::int64_t groups = CeilDiv(panels, m.panels_per_gradient);
    const double feature_flops = 2.0 * m.span_rows * panel * m.panels_per_gradient;
    m.features_per_task =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(kTaskFlops / feature_flops), 72, 252);
    m.features_per_task = RoundUp(
        std::max(m.features_per_task, CeilDiv(d * groups, Plan::kMaxTasks - 1 - groups)), 12);
    m.x_offset = reserve(copied ? (rounds > 1 ? 2 : 1) * m.span_rows * m.x_stride * c_size : 0);
    m.residuals_offset = reserve(panels * m.span_rows * panel * c_size);
    m.grads_offset = reserve(rounds > 1 ? panels * d * panel * 8 : 0);
    m.scratch_bytes = std::max(RoundUp(m.block_rows, lanes) * c_size,
                               rounds > 1 ? 0 : m.features_per_task * panel * 8);
    plan.stages = static_cast<int>(1 + 2 * rounds);
    plan.tasks[1] = static_cast<std::int32_t>(blocks * CeilDiv(panels, m.panels_per_task));
    plan.tasks[2] = static_cast<std::int32_t>(groups * CeilDiv(d, m.features_per_task) + 1);
    sums = blocks;
  }
  m.sums_offset = reserve((sums + 1) * 2 * panels * panel * 8);
  m.scratch_bytes = RoundUp(m.scratch_bytes, 64);
  plan.workers =
      static_cast<int>(std::clamp<double>(flops / kWorkerFlops, 1, std::max(threads, 1)));
  m.scratch_offset = reserve(plan.workers * m.scratch_bytes);
  plan.workspace_bytes = bytes;
  return plan;
}

}  // namespace cpu
}  // namespace linreg_ops
