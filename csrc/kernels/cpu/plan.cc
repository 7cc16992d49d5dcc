#include "kernels/cpu/plan.h"

#include <algorithm>
#include <cstdint>

namespace linreg_ops {
namespace cpu {
namespace {

// Sizes that hold on every CPU of the last ten years, and not those of the CPU at hand: tiles shape
// the sums, and so the bits. With the tile in use the next one comes into L1d: half of 32 KiB each,
// and a little more, so that 16 rows of 256 floats with their targets are one.
constexpr std::int64_t kL1d = 18 << 10;
constexpr std::int64_t kL2 = 256 << 10;

// A descent transposes once what each step would transpose in registers, as long as the copy stays
// in L2.
constexpr std::int64_t kPackedBytes = kL2;

constexpr std::int64_t kMaxSlots = 256;
// Less data than this is not worth a slot of its own.
constexpr std::int64_t kMinSlotBytes = 256 << 10;
// Roughly what one thread does in a nanosecond, and how many of them of work each thread must find.
// In a descent the threads stay awake from step to step.
constexpr double kBytesPerNanosecond = 50;
constexpr double kFlopsPerNanosecond = 100;
constexpr double kNanosecondsPerWorker = 12'000;
constexpr double kNanosecondsPerWorkerOfStep = 5'000;

int Workers(const Asked& a, double nanoseconds, std::int64_t tasks) {
  const double worth =
      nanoseconds / (a.descent ? kNanosecondsPerWorkerOfStep : kNanosecondsPerWorker);
  return static_cast<int>(
      std::clamp<double>(std::min(worth, static_cast<double>(tasks)), 1, std::max(a.threads, 1)));
}

std::int64_t PackedRows(const Asked& a) { return RoundUp(a.n, a.lanes); }

// Rows of a tile: what is read twice, the second time from L1d, or from L2 where L1d would leave
// too few rows to share the loads of w and of the gradient. 16 rows are the lanes of a vector of
// dots.
std::int64_t TileRows(const Asked& a, Route route) {
  const std::int64_t row_bytes = a.row_bytes();
  switch (route) {
    case Route::kLanePerResidual:  // as their columns leave room for, beside the next tile
      return a.k <= 4 ? 256 : 128;
    case Route::kLanePerColumn: {  // a group
      std::int64_t rows = a.lanes;
      while (rows > 4 && rows * a.d * a.x_size > (16 << 10)) rows /= 2;
      return rows;
    }
    case Route::kFewTargets: {
      if (a.k > 4) return std::clamp<std::int64_t>(kL2 / 2 / row_bytes / 16 * 16, 16, 128);
      const std::int64_t in_l1d = kL1d / row_bytes / 16 * 16, in_l2 = kL2 / row_bytes;
      if (in_l1d > 0) return std::min<std::int64_t>(in_l1d, 128);
      return in_l2 >= 16 ? 16 : in_l2 >= 4 ? in_l2 / 4 * 4 : std::max<std::int64_t>(in_l2, 1);
    }
    default:
      return a.lanes;
  }
}

// Slots are the unit of parallel work. Each leaves a partial gradient in double, which costs
// 16·k bytes of traffic per column, so it should have enough rows to make that a few percent of
// reading X; but a matrix of few long rows is cut finer, to give every thread work.
std::int64_t SlotRows(const Asked& a, std::int64_t tile_rows) {
  const std::int64_t n = std::max<std::int64_t>(a.n, 1);
  std::int64_t rows =
      std::max<std::int64_t>(512 / a.x_size * std::max<std::int64_t>(a.k / 2, 1), 1);
  rows = std::min(rows, std::max<std::int64_t>(CeilDiv(n, 16), 16));
  rows = std::max(rows, kMinSlotBytes / a.row_bytes());
  rows = std::max(rows, CeilDiv(n, kMaxSlots));
  // Equal slots, made of whole tiles.
  rows = CeilDiv(n, CeilDiv(n, rows));
  return std::min(RoundUp(rows, tile_rows), RoundUp(n, 16));
}

// The routes of up to kFewTargets targets.
void PlanFew(const Asked& a, Plan* plan) {
  const std::int64_t d = a.d, k = std::max<std::int64_t>(a.k, 1);
  const bool is_residual = plan->route == Route::kLanePerResidual;
  const bool is_column = plan->route == Route::kLanePerColumn;
  const bool is_few = plan->route == Route::kFewTargets;
  plan->tile_rows = TileRows(a, plan->route);
  plan->slot_rows = SlotRows(a, plan->tile_rows);
  const std::int64_t slots = std::max<std::int64_t>(CeilDiv(a.n, plan->slot_rows), 1);
  plan->padded_d = RoundUp(d, is_residual ? 8 : a.lanes);
  plan->columns_per_task = std::max<std::int64_t>(RoundUp(CeilDiv(plan->padded_d, 256), 8), 4096);
  plan->stages = 2;
  plan->tasks[0] = static_cast<std::int32_t>(slots);
  plan->tasks[1] = static_cast<std::int32_t>(
      std::max<std::int64_t>(CeilDiv(plan->padded_d, plan->columns_per_task), 1));
  const double nanoseconds =
      static_cast<double>(a.n) *
      std::max(static_cast<double>(a.row_bytes()) / kBytesPerNanosecond,
               4.0 * static_cast<double>(d) * static_cast<double>(k) / kFlopsPerNanosecond);
  plan->workers = Workers(a, nanoseconds, slots);

  const std::int64_t tile = RoundUp(plan->tile_rows, 16) * a.c_size;
  const std::int64_t row = plan->padded_d * a.c_size, vector = a.lanes * a.c_size;
  const std::int64_t padded_k = k <= 2 ? 2 : k <= 4 ? 4 : 8;  // see WithPadded
  Reserve scratch;
  if (is_residual || is_few) {
    plan->y_offset = scratch(padded_k * tile);
    plan->s_offset = scratch(tile + vector);
  }
  if (is_few) plan->c_offset = scratch(padded_k * tile);
  if (is_residual) {
    plan->columns_offset = scratch(d * tile + vector);
    plan->lanes_offset = scratch(d * a.lanes * 8);
  }
  if (is_few || is_column) plan->grad_offset = scratch(k * row);
  plan->scratch_bytes = scratch.bytes();

  Reserve reserve;
  plan->weights_offset = reserve(is_few        ? padded_k * row
                                 : is_residual ? d * vector
                                 : is_column   ? row
                                               : 0);
  plan->partial_head = RoundUp(2 * k, 8);
  plan->partial_stride = plan->partial_head + k * plan->padded_d;
  plan->partials_offset = reserve(slots * plan->partial_stride * 8);
  plan->scratch_offset = reserve(plan->workers * plan->scratch_bytes);
  if (plan->route == Route::kLanePerRowPacked) {
    plan->packed_offset = reserve(PackedRows(a) * d * a.c_size);
  }
  plan->workspace_bytes = reserve.bytes();
}

// scalar.cc: the rows in eight slots, so that threads have work.
void PlanPlain(const Asked& a, Plan* plan) {
  const std::int64_t size = (a.d + 2) * a.k;
  const std::int64_t slots = std::clamp<std::int64_t>(a.n / 64, 1, 8);
  plan->tile_rows = 1;
  plan->slot_rows = std::max<std::int64_t>(CeilDiv(a.n, slots), 1);
  plan->stages = 2;
  plan->tasks[0] = static_cast<std::int32_t>(slots);
  plan->tasks[1] = 1;
  plan->workers = Workers(a, 4.0 * static_cast<double>(a.n) * static_cast<double>(size), slots);
  Reserve reserve;
  plan->partial_stride = 2 * size;
  plan->partials_offset = reserve(slots * plan->partial_stride * 8);
  plan->scratch_bytes = RoundUp((a.k + size) * 8, 64);
  plan->scratch_offset = reserve(plan->workers * plan->scratch_bytes);
  plan->workspace_bytes = reserve.bytes();
}

struct Rule {
  RouteInfo info;
  bool (*takes)(const Asked&);
  void (*plan)(const Asked&, Plan*);
};

// The first that takes a problem runs it. `lanes`: 16, for float64 8.
const Rule kRules[] = {
    {{Route::kPlain, "plain", "any, on CPUs without a fused multiply-add",
      "correct anywhere, and independent of the other routes"},
     [](const Asked& a) { return a.plain; },
     PlanPlain},
    {{Route::kLanePerRowPacked, "lane_per_row_packed",
      "a descent, k = 1, 1 <= d <= lanes, X of float32 or float64 in at most 256 KiB",
      "transposes X once and not in every step"},
     [](const Asked& a) {
       return a.descent && a.k == 1 && a.d > 0 && a.d <= a.lanes && a.x_size == a.c_size &&
              PackedRows(a) <= kPackedBytes / (a.d * a.c_size);
     },
     PlanFew},
    {{Route::kLanePerRow, "lane_per_row", "k = 1, 1 <= d <= lanes",
      "rows shorter than a vector waste no lane, and go from X to the gradient in registers"},
     [](const Asked& a) { return a.k == 1 && a.d > 0 && a.d <= a.lanes; },
     PlanFew},
    {{Route::kLanePerResidual, "lane_per_residual", "2 <= k <= 8, d <= 8",
      "targets share the columns of a transposed tile, and Y is read as it lies"},
     [](const Asked& a) { return 1 < a.k && a.k <= kFewTargets && a.d <= kNarrow; },
     PlanFew},
    {{Route::kLanePerColumn, "lane_per_column", "k = 1, d > lanes or d = 0",
      "the gradient of one group of rows is summed while the next comes from memory"},
     [](const Asked& a) { return a.k == 1; },
     PlanFew},
    {{Route::kFewTargets, "few_targets", "2 <= k <= 8, d > 8",
      "targets share the loads of X, and eight of them fill a vector"},
     [](const Asked& a) { return a.k <= kFewTargets; },
     PlanFew},
    {{Route::kGemmSlots, "gemm_slots", "k > 8, 0 < d*k <= 128 Ki, n >= 2016",
      "gradients small enough for one per slot of rows: threads meet once"},
     TakesGemmSlots,
     PlanGemmSlots},
    {{Route::kGemmRounds, "gemm_rounds", "k > 8, the rest",
      "gradients too large for one per thread, or too few rows: threads share each round of rows"},
     [](const Asked&) { return true; },
     PlanGemmRounds},
};

}  // namespace

Plan MakePlan(const Data& data, int threads, bool descent, const Kernels& kernels) {
  Asked asked = {};
  asked.n = data.shape.n;
  asked.d = data.shape.d;
  asked.k = data.shape.k;
  asked.x_size = static_cast<std::int64_t>(SizeOf(data.x_type));
  asked.y_size = static_cast<std::int64_t>(SizeOf(data.w_type));
  asked.c_size = data.x_type == DType::kFloat64 ? 8 : 4;
  asked.lanes = 64 / asked.c_size;
  asked.threads = threads;
  asked.descent = descent;
  asked.plain = kernels.is_plain();
  const Rule* rule = kRules;
  while (!rule->takes(asked)) ++rule;
  Plan plan = {};
  plan.route = rule->info.route;
  rule->plan(asked, &plan);
  return plan;
}

std::vector<RouteInfo> Routes() {
  std::vector<RouteInfo> routes;
  for (const Rule& rule : kRules) routes.push_back(rule.info);
  return routes;
}

}  // namespace cpu
}  // namespace linreg_ops
