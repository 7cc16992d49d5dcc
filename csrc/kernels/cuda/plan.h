// How a problem is divided among blocks, tiles and threads: plain host arithmetic on the shape and
// the device's numbers, so that the order of every sum is the same on every run, and so that it can
// be tested without a GPU.
#pragma once

#include <cstdint>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

constexpr int kThreads = 256;  // of every block
constexpr int kWarps = kThreads / 32;

// Which kernel reads X.
enum class Path {
  kRows,     // small d: a few lanes share a row, read it once and keep it in registers
  kColumns,  // wider d: warps make the dot products, then each thread its own columns' gradient
  kChunks,   // a row does not fit a block, or k > 16: two products per chunk of rows, the second of
             // which finds the chunk in L2
};

// Additions to one float32 accumulator before it is merged into float64.
constexpr std::int64_t kSegmentRows = 480;

constexpr bool IsWide(DType type) { return type == DType::kFloat64; }

// Elements of X that a thread loads at a time: 16 bytes, but 8 where 16-bit elements with many
// targets would need too many accumulators.
constexpr int VectorWidth(DType type, Path path, int targets) {
  if (IsWide(type)) return 2;
  if (type == DType::kFloat32) return 4;
  return targets >= (path == Path::kRows ? 4 : 8) ? 4 : 8;
}

// Gradient accumulators of a thread on Path::kColumns, and its vectors of columns.
constexpr int AccumulatorCount(DType type) { return IsWide(type) ? 32 : 64; }
constexpr int ColumnVectors(DType type, int targets) {
  return AccumulatorCount(type) / (VectorWidth(type, Path::kColumns, targets) * targets);
}

// Rows that a thread (kRows) or a warp (kColumns) works on at a time: enough independent loads to
// hide shared memory's latency, few enough that `rows · targets` sums stay in registers.
constexpr int RowsAtATime(DType type, Path path, int targets) {
  if (path == Path::kRows) return targets == 1 && type == DType::kFloat32 ? 4 : 2;
  return targets >= 16 ? 2 : 4;
}

// The blocks of a multiprocessor that the compiler is asked to leave registers for. One where the
// accumulators would spill into memory at 128 registers a thread.
constexpr int BlocksPerMultiprocessor(DType type, Path path, int targets) {
  return path == Path::kRows && targets == 1 && type == DType::kFloat32 ? 2 : 1;
}

constexpr std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0); }
constexpr std::int64_t AlignUp(std::int64_t a, std::int64_t b) { return CeilDiv(a, b) * b; }
// The power of two at or above a; 1 for a < 1.
constexpr std::int64_t PowerOfTwoAbove(std::int64_t a) {
  std::int64_t result = 1;
  while (result < a) result *= 2;
  return result;
}

// One launch of the fused kernel.
struct FusedPlan {
  Path path = Path::kRows;
  int vector = 1;              // elements of X per load
  int targets = 1;             // of a thread: 1, 2, 4; on kColumns up to 16
  int target_groups = 1;       // kRows: groups of lanes that share a row, each with its own targets
  int column_lanes = 1;        // threads side by side along a row when the gradient is made
  int dot_warps = 1;           // kColumns: warps side by side along a row for the dot products
  bool vector_columns = true;  // a thread's columns are adjacent (d divides into vectors), else
                               // `lanes` apart, which keeps odd rows free of bank conflicts
  int rows_per_tile = 1;
  std::int64_t tiles = 0;
  int blocks = 1;
  int stages = 2;                  // tiles in shared memory at a time
  std::int64_t segment_tiles = 1;  // after so many, float32 sums are added to float64 ones
  // Shared memory, in bytes from the start of the block's.
  std::int64_t weights_offset = 0, dots_offset = 0, residuals_offset = 0, reduce_offset = 0;
  std::int64_t stages_offset = 0, stage_bytes = 0, y_offset = 0, s_offset = 0;
  std::int64_t shared_bytes = 0;
};

enum class Purpose { kLossGrad, kDescent };

// The plan of the fused kernel, or path == kChunks if no block can hold the problem.
FusedPlan PlanFused(const Data& data, const Device& device, Purpose purpose);

// The other path: rows [i · rows, (i + 1) · rows) at a time.
struct ChunkPlan {
  std::int64_t rows = 1;        // of a chunk
  std::int64_t row_splits = 1;  // of a chunk, side by side in the gradient kernel
  int residual_blocks = 1;
};
ChunkPlan PlanChunks(const Data& data, const Device& device);

// Whether its products go to the caller's GEMM where there is one: enough targets to beat kernels
// that read the chunk again for every four of them, and leading dimensions that BLAS's int holds.
bool SuitsGemm(const Shape& shape);

}  // namespace cuda
}  // namespace linreg_ops
