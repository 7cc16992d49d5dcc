// How a problem is divided among blocks, lanes and rows in flight: plain host arithmetic on the
// shape and the device's numbers, so that the order of every sum is the same on every run, and so
// that it can be tested without a GPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

constexpr int kThreads = 256;     // of a block, at most
constexpr int kMostTargets = 16;  // of the fused kernel
constexpr int kMostBlocksOfARow = 16;

enum class Path {
  kRows,         // the fused kernel: lanes share a row, which they keep in registers
  kTensorCores,  // a kernel of tiles in shared memory, for one pass of several targets
  kChunks,       // a row does not fit a block's registers, or k > 16: two products per chunk of
                 // rows, the second of which finds the chunk in L2
};

// Additions to one float32 accumulator before it is merged into float64.
constexpr std::int64_t kSegmentRows = 480;

constexpr bool IsWide(DType type) { return type == DType::kFloat64; }
constexpr int BytesOf(DType type) { return IsWide(type) ? 8 : type == DType::kFloat32 ? 4 : 2; }

// One instance of the fused kernel: a lane holds `vectors` loads of `vector` adjacent elements of a
// row, and as many weights and accumulators for each of `targets`.
struct Variant {
  int targets, vector, vectors;
};
// A load is 16 bytes, but for rows of a few bytes, where most of it would be another row's.
constexpr int VectorWidth(DType type) { return 16 / BytesOf(type); }
constexpr int NarrowWidth(DType type) { return IsWide(type) ? 1 : 2; }
// Weights and accumulators take up to 128 of a lane's 255 registers.
constexpr int AccumulatorBytes(DType type, int targets) {
  return IsWide(type) || (targets == 4 && BytesOf(type) == 2) ? 128 : 256;
}
// Fewer than two vectors would save little.
constexpr int MostVectors(DType type, int targets, int vector) {
  const int accumulator = IsWide(type) ? 8 : 4;
  return vector < VectorWidth(type)
             ? 1
             : AccumulatorBytes(type, targets) / accumulator / targets / vector;
}
// For a row that several blocks share: what they tell each other takes registers too. Half as many
// are faster as well, for one target and 40000 columns on an H200: 0.55 of the read bandwidth, not
// 0.47.
constexpr int TeamVectors(DType type, int targets) {
  const int most = MostVectors(type, targets, VectorWidth(type));
  return most > 1 ? most / 2 : 1;
}
constexpr int LeastVectors(DType type, int targets, int vector) {
  return MostVectors(type, targets, vector) > 1 ? 2 : 1;
}
// The instances: powers of two and, for one target, three quarters of them, which spare rows of a
// few columns more than a power of two half of the work on columns that they do not have.
constexpr bool IsInstance(DType type, Variant v) {
  const int part = v.targets == 1 && v.vectors % 3 == 0 ? v.vectors / 3 : v.vectors;
  return v.vectors >= LeastVectors(type, v.targets, v.vector) &&
         v.vectors <= MostVectors(type, v.targets, v.vector) && (part & (part - 1)) == 0;
}
// Rows that a lane loads before it uses the first: 256 bytes, as far as registers hold them, their
// sums for each target and, of 16-bit rows, what they are converted to. Found by what nvcc 13 for
// sm_90 compiles without spilling; tests/test_cuda_build.py sees to that.
constexpr int RowsInFlight(DType type, Variant v, bool team = false) {
  const bool full = v.vectors > 1 && v.vectors == MostVectors(type, v.targets, v.vector);
  const bool half = BytesOf(type) == 2;
  const int most = v.targets == 1   ? 16
                   : v.targets == 4 ? (IsWide(type)                ? 4
                                       : v.vector * v.vectors <= 2 ? 8
                                                                   : 6)
                   : IsWide(type)   ? 8
                                    : 16;
  const bool fewer = type == DType::kFloat16 && v.vectors == 2;
  const int bytes = v.targets == 1   ? (full && half ? 128
                                        : fewer      ? 192
                                                     : 256)
                    : v.targets == 2 ? (IsWide(type) || (half && team) ? 128
                                        : full && half                 ? 64
                                        : fewer                        ? 192
                                                                       : 256)
                    : half           ? 64
                    : IsWide(type)   ? 48
                                     : 192;
  const int rows = bytes / (v.vector * v.vectors * BytesOf(type));
  return rows < 1 ? 1 : rows > most ? most : rows;
}

// Iterations whose rows are under way to a lane's ring in shared memory, which takes no registers
// until their turn: 128 KB of a block's 256 lanes. For one target and rows of several warps, which
// wait for each other: these have as many vectors as a lane may have, or three quarters of them. 0:
// no ring. Faster on an H200, most of all for 16-bit rows; more targets gain under a tenth, and
// rows of few lanes, which load half a cache line each, lose.
constexpr int RingStages(DType type, Variant v, bool team = false) {
  const int most = MostVectors(type, v.targets, v.vector);
  const bool halved = team || BytesOf(type) == 2;
  if (v.targets > 1 || v.vector < VectorWidth(type)) return 0;
  if (v.vectors < (halved ? most / 2 : most) * 3 / 4) return 0;
  return std::min(8, 512 / (RowsInFlight(type, v, team) * v.vectors * 16));
}

// Rows of so few columns, for one target, are whole in a lane: kernels of their own for each number
// of columns.
constexpr int kNarrowColumns = 7;
// Tiles of columns · 16 bytes that a lane works on at a time, and how often that many are under
// way.
constexpr int NarrowTiles(int columns) { return columns == 1 ? 4 : columns <= 3 ? 2 : 1; }
constexpr int NarrowStages(int columns) { return 40 / (NarrowTiles(columns) * columns); }
constexpr int NarrowRingBytes(int columns) {
  return ((NarrowStages(columns) * NarrowTiles(columns) * columns) | 1) * 16;
}

constexpr std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0); }
constexpr std::int64_t AlignUp(std::int64_t a, std::int64_t b) { return CeilDiv(a, b) * b; }
// The power of two at or above a; 1 for a < 1.
constexpr std::int64_t PowerOfTwoAbove(std::int64_t a) {
  std::int64_t result = 1;
  while (result < a) result *= 2;
  return result;
}

// The tensor cores' kernel: see TensorPass. A tile has 16 rows, which a group of warps shares.
constexpr int kTensorRows = 16;
constexpr int kLeastTensorStages = 4, kMostTensorStages = 6;
struct TensorPlan {
  int targets = 8;   // 8 or 16, of which the first k exist
  int columns = 64;  // of a warp
  int warps = 1;     // of a group
  int stages = 0;    // tiles that a group has shared memory for
  // Bytes: between rows of a tile, from a slot of the ring to its Y and sample weights, of a slot,
  // and of a group's shared memory.
  int pitch = 0, y_offset = 0, s_offset = 0, slot_bytes = 0, group_bytes = 0;
  // The upper half of (number of a 16-byte chunk) · inverse is the chunk's row, as 2^32 is so much
  // more than a tile has.
  std::uint32_t inverse = 0;
};

// One launch of the fused kernel, or of the tensor cores', which `tensor` is for. A group of lanes
// · target_groups lanes takes every (teams · groups)th row.
struct FusedPlan {
  Path path = Path::kRows;
  bool narrow = false;  // a lane has whole rows
  Variant variant = {1, 1, 1};
  int lanes = 1;          // that share a row; a power of two within a block
  int target_groups = 1;  // groups of lanes that hold the same row, each with its own targets
  int threads = kThreads;
  int groups = 1;  // of a block
  int blocks = 1;
  int team = 1;   // blocks that share a row, all resident at once
  int teams = 1;  // blocks / team: each has its own partial sums
  int rows = 1;   // of one iteration of a group
  // Rows start at so many different places modulo a vector; blocks · groups is a multiple of it, so
  // that all rows of a group start at the same place and a lane keeps to its columns.
  int period = 1;
  std::int64_t iterations = 0;
  int whole = 0;    // of them, that need no look at where X ends
  int segment = 1;  // iterations after which float32 sums are added to float64 ones
  // A block has one float32 number for each of the gradient's: one group, and no segment is full.
  bool narrow_sums = false;
  bool ring = false;  // see RingStages
  TensorPlan tensor;
  // Shared memory, in bytes from the start of the block's.
  std::int64_t sums_offset = 0, exchange_offset = 0, scalars_offset = 0, ring_offset = 0,
               shared_bytes = 0;
};

// The ways to make a pass, by who holds a row of X, and by how many targets at most.
struct Route {
  const char* name;
  std::int64_t most_targets;
  // Warp instructions of the compiled PTX, without its moves between registers, for each clock in
  // which a multiprocessor of an H200 takes in its share of 4.8 TB/s: 20.2 bytes. At most four are
  // issued in a clock; with two and less to issue, it is memory that a pass waits for.
  double budget;
};
constexpr std::int64_t kAnyTargets = std::numeric_limits<std::int64_t>::max();
// tests/test_cuda_budgets.py holds each to its budget.
constexpr Route kRoutes[] = {
    {"row_per_lane", 1, 1.5},   {"lanes_per_row", 1, 1.6},  {"lanes_per_row", 4, 2.6},
    {"lanes_per_row", 16, 9.5}, {"warps_per_row", 1, 1.7},  {"warps_per_row", 4, 2.6},
    {"warps_per_row", 16, 9.5}, {"blocks_per_row", 1, 1.5}, {"blocks_per_row", 4, 2.5},
    {"tensor_cores", 8, 10},    {"tensor_cores", 16, 12},   {"chunks", kAnyTargets, 220},
};
const Route& RouteOf(const Shape& shape, const FusedPlan& plan);
// Bytes of X and y that a multiprocessor has asked for and not used yet, where it has a block.
std::int64_t BytesInFlight(const Data& data, const FusedPlan& plan);

// The plan of the fused kernel, or path == kChunks if no block can hold the problem.
FusedPlan PlanFused(const Data& data, const Device& device);
// A plan of one pass, which may take the tensor cores as well; a descent keeps to PlanFused.
FusedPlan PlanPass(const Data& data, const Device& device);

// Bytes of a block's rows of X as its lanes hold them, in all iterations.
std::int64_t KeptBytes(const Data& data, const FusedPlan& plan);

// The other path: rows [i · rows, (i + 1) · rows) at a time.
struct ChunkPlan {
  std::int64_t rows = 1;        // of a chunk
  std::int64_t row_splits = 1;  // of a chunk, side by side in the gradient kernel
  int residual_blocks = 1;
};
ChunkPlan PlanChunks(const Data& data, const Device& device, bool gemm);

// Whether its products go to the caller's GEMM where there is one: enough targets to beat kernels
// that read the chunk again for every four of them, and leading dimensions that BLAS's int holds.
bool SuitsGemm(const Shape& shape);
// Whether the caller's GEMM, where there is one, beats the fused kernel for a problem that suits
// both. Not asked where there is a plan for the tensor cores, which were faster where measured.
bool PrefersGemm(const Data& data);

}  // namespace cuda
}  // namespace linreg_ops
