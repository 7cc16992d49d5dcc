#include "kernels/cuda/plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

namespace linreg_ops {
namespace cuda {
namespace {

// What one block reads in about the time that a second launch, or a grid barrier, costs.
constexpr std::int64_t kSingleBlockBytes = 128 << 10;
// What one warp reads about as fast as a block, whose barriers cost more.
constexpr std::int64_t kSingleWarpBytes = 4 << 10;

std::int64_t RowBytes(const Data& data) {
  const auto w_size = static_cast<std::int64_t>(SizeOf(data.w_type));
  const std::int64_t bytes = data.shape.d * static_cast<std::int64_t>(SizeOf(data.x_type)) +
                             (data.y ? data.shape.k * w_size : 0) +
                             (data.sample_weight ? w_size : 0);
  return std::max<std::int64_t>(1, bytes);
}

// The lanes of a row and what each holds; false if a block has too few.
bool ChooseLanes(const Data& data, FusedPlan* plan) {
  const std::int64_t d = data.shape.d;
  const int k = static_cast<int>(PowerOfTwoAbove(data.shape.k));
  constexpr int kTargetsOfALane = 4;
  Variant& v = plan->variant;
  v.targets = std::min(k, kTargetsOfALane);
  plan->target_groups = k / v.targets;
  v.vector = (k > 1 || IsWide(data.x_type)) && d <= NarrowWidth(data.x_type)
                 ? NarrowWidth(data.x_type)
                 : VectorWidth(data.x_type);
  // Rows start anywhere in a vector where d is not a multiple of one.
  plan->period = v.vector / std::gcd(static_cast<int>(d % v.vector), v.vector);
  const std::int64_t needed = CeilDiv(d + v.vector - v.vector / plan->period, v.vector);
  const std::int64_t vectors = PowerOfTwoAbove(needed);
  // Few lanes, because their sum costs a shuffle for each doubling; but so many that a warp's load
  // touches few cache lines.
  constexpr std::int64_t kLanes = 4;
  std::int64_t lanes = std::max<std::int64_t>(1, std::min(kLanes, vectors / 2));
  const int least = LeastVectors(data.x_type, v.targets, v.vector);
  const auto share = [&](int most) {
    v.vectors = static_cast<int>(
        std::min<std::int64_t>(std::max<std::int64_t>(vectors / lanes, least), most));
    return std::max<std::int64_t>(1, vectors / v.vectors);
  };
  const int most = MostVectors(data.x_type, v.targets, v.vector);
  // Half as many, and more rows in flight, where a block has lanes enough for 16-bit rows.
  const bool halved =
      BytesOf(data.x_type) == 2 && v.targets == 1 && most > least && 2 * vectors / most <= kThreads;
  lanes = share(halved ? most / 2 : most);
  if (v.targets == 1 && v.vectors > 1 && 4 * needed <= 3 * lanes * v.vectors) {
    if (v.vectors == 2 && lanes > 1) {
      lanes /= 2;
      v.vectors = 4;
    }
    if (v.vectors > 2) v.vectors -= v.vectors / 4;
  }
  if (lanes * plan->target_groups > kThreads) {
    if (plan->target_groups > 1) return false;
    v.vectors = TeamVectors(data.x_type, v.targets);
    const std::int64_t team = CeilDiv(needed, std::int64_t{kThreads} * v.vectors);
    if (team > kMostBlocksOfARow) return false;
    plan->team = static_cast<int>(team);
    lanes = kThreads * team;
  }
  plan->lanes = static_cast<int>(lanes);
  plan->rows = RowsInFlight(data.x_type, v, plan->team > 1);
  return true;
}

// A block's sums: the lanes' accumulators, summed over the block there, or before W on its way to
// the lanes and what a row's blocks tell each other; what warps that share a row tell each other;
// and each warp's loss and intercept.
std::int64_t LayOutShared(const Data& data, FusedPlan* plan) {
  const std::int64_t accumulator = IsWide(data.x_type) ? 8 : 4;
  const Variant& v = plan->variant;
  const std::int64_t warps = CeilDiv(plan->threads, 32);
  const std::int64_t sums =
      std::int64_t{v.targets} * v.vector * v.vectors * plan->threads * accumulator;
  plan->exchange_offset = AlignUp(
      std::max({sums, (plan->lanes / plan->team + 1) * v.vector * data.shape.k * accumulator,
                std::int64_t{plan->threads} * 8}),
      16);
  plan->scalars_offset = plan->exchange_offset;
  if (plan->lanes > 32) plan->scalars_offset += 2 * warps * plan->rows * v.targets * accumulator;
  plan->scalars_offset = AlignUp(plan->scalars_offset, 16);
  plan->shared_bytes = plan->scalars_offset + warps * 2 * kMostTargets * 8;
  return plan->shared_bytes;
}

// Behind the rest of the block's shared memory, if it fits. Only whole vectors are copied.
void LayOutRing(const Data& data, const Device& device, FusedPlan* plan) {
  const Variant& v = plan->variant;
  const int stages = RingStages(data.x_type, v, plan->team > 1);
  const std::int64_t offset = AlignUp(plan->shared_bytes, 16);
  const std::int64_t bytes = std::int64_t{stages} * plan->rows * v.vectors * 16 * plan->threads;
  constexpr int kFrom = 90;  // older devices lack the memory, their compilers the registers
  plan->ring = device.code >= kFrom && stages > 0 && plan->lanes > 32 && plan->period == 1 &&
               plan->whole > stages && offset + bytes <= device.shared_per_block;
  if (!plan->ring) return;
  plan->ring_offset = offset;
  plan->shared_bytes = offset + bytes;
}

int WholeIterations(std::int64_t count) {
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();  // of more than 2^40 rows
  return static_cast<int>(std::min(kMost, count));
}
int SegmentOf(DType x_type, int rows) {
  return IsWide(x_type) ? std::numeric_limits<int>::max() : static_cast<int>(kSegmentRows) / rows;
}

// As many threads as the device's shared memory lets sum; false if they do not make one group.
bool ChooseThreads(const Data& data, const Device& device, std::int64_t bytes, FusedPlan* plan) {
  const int group = plan->lanes / plan->team * plan->target_groups;
  plan->threads = kThreads;
  if (bytes <= kSingleWarpBytes && group <= 32) plan->threads = 32;
  while (LayOutShared(data, plan) > device.shared_per_block && plan->threads > 32) {
    plan->threads /= 2;
  }
  plan->groups = plan->threads / group;
  return plan->groups > 0 && plan->shared_bytes <= device.shared_per_block;
}

// Rows that are whole in a lane.
FusedPlan PlanNarrow(const Data& data, const Device& device, bool small, std::int64_t bytes) {
  FusedPlan plan;
  plan.narrow = true;
  const int columns = static_cast<int>(data.shape.d);
  const int tile = VectorWidth(data.x_type);  // rows
  const int tiles = NarrowTiles(columns);
  plan.variant = {1, tile, columns};
  plan.rows = tile * tiles;
  plan.threads = bytes <= kSingleWarpBytes ? 32 : kThreads;
  const auto lay_out = [&] {
    plan.sums_offset = std::int64_t{NarrowRingBytes(columns)} * plan.threads;
    // For its own sums, and those of the other blocks' in a descent, while the ring holds X.
    plan.shared_bytes = plan.sums_offset + std::max((columns + 2) * (kThreads / 32), kThreads) * 8;
    return plan.shared_bytes;
  };
  while (lay_out() > device.shared_per_block && plan.threads > 32) plan.threads /= 2;
  plan.groups = plan.threads;
  const std::int64_t wanted = CeilDiv(data.shape.n, std::int64_t{plan.threads} * plan.rows);
  const std::int64_t most = small ? 1 : device.multiprocessors;
  plan.blocks = plan.teams = static_cast<int>(std::max<std::int64_t>(1, std::min(wanted, most)));
  const std::int64_t stride = std::int64_t{plan.blocks} * plan.threads;
  plan.iterations = CeilDiv(CeilDiv(CeilDiv(data.shape.n, tile), stride), tiles);
  plan.whole = WholeIterations(data.shape.n / tile / stride / tiles);
  plan.segment = SegmentOf(data.x_type, plan.rows);
  return plan;
}

// Where the tensor cores' kernel is the faster one, of X of 1 GiB on an H200, which
// `python -m benchmarks.gpu` repeats. Columns that a tile has and X has not take as long as X's: of
// bfloat16 half of them may, because the fused kernel takes several times as long; of the others,
// where it is closer, and of few columns faster, a quarter. Three targets and four are worth it for
// bfloat16 alone, and for rows that take the wider tile.
bool SuitsTensorCores(const Data& data, std::int64_t columns) {
  const std::int64_t d = data.shape.d, k = data.shape.k;
  if (k > kMostTargets) return false;
  if (data.x_type == DType::kBFloat16) return k >= (d >= 128 ? 3 : 5) && 2 * d >= columns;
  return k >= 5 && 4 * d >= 3 * columns;
}

// Shared memory for as many groups as registers allow, and tiles ahead; none if it lacks that of
// one. R's parts, which every warp of a group has, and its pieces are there twice.
void LayOutTensor(const Data& data, const Device& device, FusedPlan* plan) {
  TensorPlan& t = plan->tensor;
  const int x_size = BytesOf(data.x_type), w_size = BytesOf(data.w_type);
  const int k = static_cast<int>(data.shape.k), columns = t.columns * t.warps;
  // Eight rows of what a warp loads at a time meet no bank of shared memory twice.
  t.pitch = columns * x_size + (data.x_type == DType::kBFloat16 ? 16 : 32);
  t.inverse =
      static_cast<std::uint32_t>(CeilDiv(std::int64_t{1} << 32, data.shape.d * x_size / 16));
  t.y_offset = (kTensorRows - 1) * t.pitch + columns * x_size;
  t.s_offset = t.y_offset + kTensorRows * k * w_size;
  t.slot_bytes = t.s_offset + (data.sample_weight ? kTensorRows * w_size : 0);
  const int pieces = 3 * kTensorRows * (t.targets == 8 ? 16 : 48);
  const int fixed = 2 * (t.warps * kTensorRows * t.targets * 4 + pieces);
  const std::int64_t most = device.shared_per_block;
  const auto bytes = [&] { return std::int64_t{plan->groups} * (t.stages * t.slot_bytes + fixed); };
  plan->groups = kThreads / 32 / t.warps;
  t.stages = kMostTensorStages;
  while (bytes() > most && t.stages > kLeastTensorStages) --t.stages;
  while (bytes() > most && plan->groups > 0) --plan->groups;
  t.group_bytes = t.stages * t.slot_bytes + fixed;
  plan->threads = plan->groups * t.warps * 32;
  // In turn: the groups' sums, their losses and intercepts; W, as it comes; what PlainPass needs.
  const std::int64_t sums = std::int64_t{plan->groups} * columns * t.targets * 4;
  const std::int64_t plain = 2 * (data.shape.d + kTensorRows) * k * 4;
  plan->shared_bytes =
      std::max({bytes(), sums + std::int64_t{plan->threads} / 32 * t.targets * 16, plain});
}

}  // namespace

FusedPlan PlanPass(const Data& data, const Device& device) {
  const Shape& shape = data.shape;
  constexpr int kFrom = 90;  // its code is for those alone
  constexpr std::int64_t kMostWarps = 8, kLeastSteps = 4;
  FusedPlan plan;
  plan.path = Path::kTensorCores;
  TensorPlan& t = plan.tensor;
  const bool whole_chunks = shape.d * BytesOf(data.x_type) % 16 == 0 &&
                            reinterpret_cast<std::uintptr_t>(data.x) % 16 == 0;
  if (device.code < kFrom || IsWide(data.x_type) || !whole_chunks || shape.d > 128 * kMostWarps) {
    return PlanFused(data, device);
  }
  t.targets = shape.k <= 8 ? 8 : 16;
  t.columns = data.x_type == DType::kBFloat16 && shape.d > 64 ? 128 : 64;
  t.warps = static_cast<int>(PowerOfTwoAbove(CeilDiv(shape.d, t.columns)));
  if (t.warps > kMostWarps || !SuitsTensorCores(data, t.warps * t.columns)) {
    return PlanFused(data, device);
  }
  LayOutTensor(data, device, &plan);
  // Few rows are over before the first tiles are there.
  const std::int64_t rows = std::int64_t{device.multiprocessors} * plan.groups * kTensorRows;
  if (plan.groups == 0 || plan.shared_bytes > device.shared_per_block ||
      shape.n < kLeastSteps * rows) {
    return PlanFused(data, device);
  }
  plan.blocks = plan.teams = device.multiprocessors;
  plan.rows = kTensorRows;
  plan.lanes = t.warps * 32;
  return plan;
}

FusedPlan PlanFused(const Data& data, const Device& device) {
  const Shape& shape = data.shape;
  FusedPlan plan;
  FusedPlan chunks;
  chunks.path = Path::kChunks;
  constexpr std::int64_t kWidest = 1 << 20;  // of any fused plan, so that int holds a row's sizes
  if (shape.k > kMostTargets || shape.d > kWidest) return chunks;
  const std::int64_t row_bytes = RowBytes(data);
  const bool small = shape.n <= kSingleBlockBytes / row_bytes;
  const std::int64_t bytes = small ? shape.n * row_bytes : kSingleBlockBytes;
  if (shape.k == 1 && shape.d >= 1 && shape.d <= kNarrowColumns && !IsWide(data.x_type)) {
    return PlanNarrow(data, device, small, bytes);
  }
  if (!ChooseLanes(data, &plan) || !ChooseThreads(data, device, bytes, &plan)) return chunks;
  // One block of 8 warps a multiprocessor, whose registers it fills.
  const std::int64_t wanted = CeilDiv(shape.n, std::int64_t{plan.groups} * plan.rows);
  const std::int64_t most = small ? 1 : device.multiprocessors / plan.team;
  const std::int64_t unit = std::max(1, plan.period / plan.groups);
  plan.teams = static_cast<int>(
      std::max(unit, std::max<std::int64_t>(1, std::min(wanted, most)) / unit * unit));
  plan.blocks = plan.teams * plan.team;
  if (plan.team > 1 && (plan.blocks > device.multiprocessors || !device.cooperative_launch)) {
    return chunks;
  }
  const std::int64_t stride = std::int64_t{plan.teams} * plan.groups;
  // The last row's last vector may reach beyond X.
  const std::int64_t safe = std::max<std::int64_t>(0, shape.n - (plan.period > 1 ? 1 : 0));
  plan.whole = WholeIterations(safe / stride / plan.rows);
  plan.segment = SegmentOf(data.x_type, plan.rows);
  LayOutRing(data, device, &plan);
  plan.narrow_sums = !IsWide(data.x_type) && plan.groups == 1 && plan.blocks > 1 &&
                     CeilDiv(shape.n, stride * plan.rows) < plan.segment;
  return plan;
}

const Route& RouteOf(const Shape& shape, const FusedPlan& plan) {
  const char* const name = plan.path == Path::kChunks        ? "chunks"
                           : plan.path == Path::kTensorCores ? "tensor_cores"
                           : plan.narrow                     ? "row_per_lane"
                           : plan.team > 1                   ? "blocks_per_row"
                           : plan.lanes > 32                 ? "warps_per_row"
                                                             : "lanes_per_row";
  const Route* route = kRoutes;
  while (std::strcmp(route->name, name) != 0 || route->most_targets < shape.k) ++route;
  return *route;
}

std::int64_t BytesInFlight(const Data& data, const FusedPlan& plan) {
  if (plan.path == Path::kChunks) return 0;
  const Variant& v = plan.variant;
  const auto x_size = static_cast<std::int64_t>(SizeOf(data.x_type));
  if (plan.narrow) {  // y's come an iteration ahead
    const std::int64_t x = NarrowStages(v.vectors) * v.vectors * x_size;
    return plan.threads * plan.rows * (x + static_cast<std::int64_t>(SizeOf(data.w_type)));
  }
  const std::int64_t y = data.shape.k * static_cast<std::int64_t>(SizeOf(data.w_type));
  if (plan.path == Path::kTensorCores) {  // beside the tiles that three steps are at work on
    const int ahead = plan.tensor.stages - 3;
    return std::int64_t{plan.groups} * ahead * kTensorRows * (data.shape.d * x_size + y);
  }
  const int iterations = plan.ring ? RingStages(data.x_type, v, plan.team > 1) : 1;  // of X's
  const std::int64_t x = plan.threads / plan.target_groups * v.vectors * v.vector * x_size;
  return plan.rows * (iterations * x + plan.groups * y);
}

std::int64_t KeptBytes(const Data& data, const FusedPlan& plan) {
  const std::int64_t stride = std::int64_t{plan.teams} * plan.groups;
  const std::int64_t iterations = CeilDiv(data.shape.n, stride * plan.rows);
  const Variant& v = plan.variant;
  return iterations * plan.rows * v.vectors * plan.threads * v.vector *
         static_cast<std::int64_t>(SizeOf(data.x_type));
}

ChunkPlan PlanChunks(const Data& data, const Device& device, bool gemm) {
  const Shape& shape = data.shape;
  ChunkPlan plan;
  const auto x_size = static_cast<std::int64_t>(SizeOf(data.x_type));
  const std::int64_t l2 = std::max<std::int64_t>(device.l2_bytes, 4 << 20);
  // Half of L2 for X, so that its second use finds it.
  std::int64_t row_bytes = x_size * std::max(shape.d, shape.k), chunk_bytes = l2 / 2;
  if (gemm) {
    // Products by cuBLAS take twice as long of 30 MB as of all rows at once, on an H200, and still
    // longer of 256 MB: as many rows as this much memory has residuals for, and 16-bit
    // rows widened to float32.
    row_bytes = x_size == 2 ? 6 * shape.k + 4 * shape.d : x_size * shape.k;
    chunk_bytes = std::max<std::int64_t>(l2 / 2, 256 << 20);
  }
  row_bytes = std::max<std::int64_t>(1, row_bytes);
  plan.rows = std::max<std::int64_t>(
      1, std::min(shape.n, std::max<std::int64_t>(32, chunk_bytes / row_bytes)));
  const std::int64_t column_blocks =
      std::max<std::int64_t>(1, CeilDiv(shape.d, kThreads) * CeilDiv(shape.k, 4));
  plan.row_splits = std::max<std::int64_t>(
      1, std::min<std::int64_t>(16, 4 * std::int64_t{device.multiprocessors} / column_blocks));
  plan.residual_blocks = 8 * std::max(1, device.multiprocessors);
  return plan;
}

bool SuitsGemm(const Shape& shape) {
  constexpr std::int64_t kFromTargets = 5;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  return shape.n > 0 && shape.d > 0 && shape.k >= kFromTargets &&
         std::max(shape.d, shape.k) <= kMost;
}

// As measured on an H200 with X of 1 GiB, against TensorFlow's two products in TF32 and without.
bool PrefersGemm(const Data& data) {
  const Shape& shape = data.shape;
  constexpr std::int64_t kLarge = 4 << 20;  // elements: less is over before several launches are
  if (!SuitsGemm(shape) || IsWide(data.x_type) || shape.n <= kLarge / shape.d) return false;
  return BytesOf(data.x_type) == 2 || shape.d >= 512 || (shape.k > 8 && shape.d >= 64);
}

}  // namespace cuda
}  // namespace linreg_ops
