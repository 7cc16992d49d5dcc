// The plans of the gemm routes: see gemm-inl.h.
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

// `total` in equal parts of at most `most`, each a multiple of `unit`.
std::int64_t EqualParts(std::int64_t total, std::int64_t most, std::int64_t unit) {
  const std::int64_t parts = std::max<std::int64_t>(CeilDiv(total, most), 1);
  return std::max<std::int64_t>(RoundUp(CeilDiv(total, parts), unit), unit);
}

// What both routes need, and the tasks of the first stage, which packs W.
void PlanPacking(const Asked& a, bool slots, Reserve& reserve, Plan* plan) {
  const std::int64_t panel = 2 * a.lanes, panels = CeilDiv(a.k, panel);
  GemmPlan& m = plan->gemm;
  m.depth = EqualParts(a.d, kDepth, 4);
  m.packed_from = a.n <= 24 ? a.k / panel : 0;
  // Rows a power of two apart share a set of the caches.
  const bool collide = !slots && a.n >= kChunkRows && a.d > 0 && a.d * a.c_size % 2048 == 0;
  m.x_stride = a.x_size == 2 || (slots && a.d < a.lanes) ? RoundUp(a.d, a.lanes) : a.d;
  if (collide) m.x_stride += a.lanes;
  m.weights_offset = reserve((panels - m.packed_from) * a.d * panel * a.c_size);
  m.bias_offset = reserve(panels * panel * a.c_size);
  plan->tasks[0] =
      static_cast<std::int32_t>(std::clamp<std::int64_t>(a.d * a.k / (64 << 10), 1, 64));
}

// The sums of `parts` slots or blocks, and the workers' scratch.
void PlanRest(const Asked& a, std::int64_t parts, std::int64_t features, std::int64_t scratch,
              Reserve& reserve, Plan* plan) {
  const std::int64_t panel = 2 * a.lanes, panels = CeilDiv(a.k, panel);
  GemmPlan& m = plan->gemm;
  m.sums_offset = reserve((parts + 1) * 2 * panels * panel * 8);
  m.scratch_bytes = RoundUp(scratch, 64);
  const double flops =
      4.0 * static_cast<double>(a.n) * static_cast<double>(features) * static_cast<double>(a.k);
  plan->workers =
      static_cast<int>(std::clamp<double>(flops / kWorkerFlops, 1, std::max(a.threads, 1)));
  m.scratch_offset = reserve(plan->workers * m.scratch_bytes);
  plan->tile_rows = m.chunk_rows;
  plan->workspace_bytes = reserve.bytes();
}

}  // namespace

bool TakesGemmSlots(const Asked& a) {
  return a.k > kFewTargets && a.d > 0 && a.d * a.k <= kSlotElements && a.n >= 8 * kChunkRows;
}

void PlanGemmSlots(const Asked& a, Plan* plan) {
  const std::int64_t n = a.n, d = a.d, k = a.k, panel = 2 * a.lanes;
  GemmPlan& m = plan->gemm;
  Reserve reserve;
  PlanPacking(a, true, reserve, plan);
  const std::int64_t slot_bytes = RoundUp(d, panel) * k * 8;
  std::int64_t slots = std::clamp<std::int64_t>(kSlotsBytes / slot_bytes, 8, 64);
  slots = std::min(slots, n / kChunkRows / 4 * 4);
  m.span_rows = CeilDiv(n, slots);
  slots = CeilDiv(n, m.span_rows);
  const std::int64_t in_cache =
      std::clamp<std::int64_t>(kChunkBytes / (d * a.c_size), kMinChunkRows, kChunkRows);
  m.chunk_rows = EqualParts(m.span_rows, in_cache, 1);
  m.flush_rows = kChunkRows;
  m.features_per_reduction =
      panel * std::max<std::int64_t>(1, d * k / 4096 > 0 ? d / panel / (d * k / 4096) : d);
  m.slot_stride = slot_bytes / 8;
  m.grads_offset = reserve(slots * slot_bytes);
  plan->stages = 3;
  plan->tasks[1] = static_cast<std::int32_t>(slots);
  plan->tasks[2] = static_cast<std::int32_t>(CeilDiv(d, m.features_per_reduction));
  const std::int64_t scratch = kPanelsOfR * m.chunk_rows * panel + RoundUp(m.chunk_rows, a.lanes) +
                               m.slot_stride + m.chunk_rows * m.x_stride;
  // The gradient is computed in whole vectors of features, however few features there are.
  PlanRest(a, slots, std::max(d, a.lanes), scratch * a.c_size, reserve, plan);
}

void PlanGemmRounds(const Asked& a, Plan* plan) {
  const std::int64_t n = a.n, d = a.d, k = a.k, panel = 2 * a.lanes, panels = CeilDiv(k, panel);
  GemmPlan& m = plan->gemm;
  Reserve reserve;
  PlanPacking(a, false, reserve, plan);
  const bool copied = a.x_size == 2 || m.x_stride != d;
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
  m.panels_per_task = std::clamp<std::int64_t>(static_cast<std::int64_t>(kTaskFlops / panel_flops),
                                               1, std::max<std::int64_t>(panels, 1));
  m.panels_per_task = std::min<std::int64_t>(m.panels_per_task, kPanelsOfR);
  m.panels_per_task =
      std::max(m.panels_per_task, CeilDiv(blocks * panels, Plan::kMaxTasks - blocks));
  const std::int64_t grouped =
      std::max<std::int64_t>(std::min<std::int64_t>(panels, kPanelsOfR), 1);
  m.panels_per_gradient = std::max(grouped, CeilDiv(panels, 4096));
  const std::int64_t groups = CeilDiv(panels, m.panels_per_gradient);
  const double feature_flops = 2.0 * m.span_rows * panel * m.panels_per_gradient;
  m.features_per_task =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(kTaskFlops / feature_flops), 72, 252);
  m.features_per_task =
      RoundUp(std::max(m.features_per_task, CeilDiv(d * groups, Plan::kMaxTasks - 1 - groups)), 12);
  m.x_offset = reserve(copied ? (rounds > 1 ? 2 : 1) * m.span_rows * m.x_stride * a.c_size : 0);
  m.residuals_offset = reserve(panels * m.span_rows * panel * a.c_size);
  m.grads_offset = reserve(rounds > 1 ? panels * d * panel * 8 : 0);
  const std::int64_t scratch = std::max(RoundUp(m.block_rows, a.lanes) * a.c_size,
                                        rounds > 1 ? 0 : m.features_per_task * panel * 8);
  plan->stages = static_cast<int>(1 + 2 * rounds);
  plan->tasks[1] = static_cast<std::int32_t>(blocks * CeilDiv(panels, m.panels_per_task));
  plan->tasks[2] = static_cast<std::int32_t>(groups * CeilDiv(d, m.features_per_task) + 1);
  PlanRest(a, blocks, d, scratch, reserve, plan);
}

}  // namespace cpu
}  // namespace linreg_ops
