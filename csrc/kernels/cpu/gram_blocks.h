// The sums of blocks of rows, on threads: what gram.cc is built on.
#pragma once

#include <cstdint>

#include "kernels/cpu/gram_kernel.h"
#include "kernels/cpu/gram_layout.h"
#include "kernels/gram.h"

namespace linreg_ops {
namespace cpu {

// A block's rows: those that wait since earlier batches, then some of the batch at hand; and where
// its sums are added.
struct GramBlock {
  double* sum;
  double* error;
  const double* pending;  // [pending_rows, d + k + 1]
  std::int64_t pending_rows;
  const std::int64_t* index;  // [rows] numbers of rows in the batch; null: from `first` on
  std::int64_t first;
  std::int64_t rows;
};

// One array of the batch at hand.
struct GramArray {
  const void* data;
  DType type;
  std::int64_t stride;  // of its rows, in elements
  const void* end;
};

// The batch at hand, and the columns' scale and offset, which are padded to whole panels with
// zeros.
struct GramInput {
  GramArray x, y;
  const double* weights;  // null: ones
  const double* x_scale;
  const double* x_offset;
  const double* y_scale;
  const double* y_offset;
};

// How blocks are computed: a matter of time and memory, not of bits. Where the sums are small each
// thread takes whole blocks, and their sums are added up afterwards; where they are large all
// threads share a block, its packing first and then its tiles.
struct GramBlocksPlan {
  GramBlocksPlan(const GramLayout& layout, std::int64_t blocks, int threads);

  bool shared;  // a block among threads
  int workers;
  std::int64_t blocks;  // computed at a time, one when shared
  std::int64_t panels_per_pack;
  std::int64_t rights_per_task;
  std::int64_t workspace_bytes;

  // Bytes into the workspace; of a worker's, into its scratch.
  std::int64_t slots_offset;   // double [blocks][size]; shared: the margins alone
  std::int64_t packed_offset;  // shared: of the block; else in each scratch, of a run
  std::int64_t left_offset;
  std::int64_t scratch_offset, scratch_bytes;
  std::int64_t weights_offset, margins_offset, tiles_offset, lanes_offset;
};

// Adds the blocks' sums to their targets, in order.
void AddGramBlocks(const GramLayout& layout, const GramKernels& kernels, const GramBlocksPlan& plan,
                   const GramInput& input, const GramBlock* blocks, std::int64_t count,
                   const Threads& threads, char* workspace);

}  // namespace cpu
}  // namespace linreg_ops
