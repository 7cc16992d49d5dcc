// The Gram engine: in one read of X [n, d] and Y [n, k], the sums over rows that ridge regression,
// its cross-validation and its statistics are made of.
//
//     z = (x − shift)·scale, t likewise from y        Σ s z zᵀ, Σ s z tᵀ, Σ s t², Σ s z, Σ s t, Σ s
//
// Everything is computed and kept in float64: the products of float32 or narrower elements are
// exact. A state takes rows in batches. It cuts the rows of a fold into blocks of kGramBlockRows,
// counted from the fold's first row, whatever the batches are: a block that a batch leaves half
// done is kept as rows. So the bits depend on the sequence of the rows and weights of each fold,
// and on d and k, alone: not on batches, threads, types that hold the same numbers, an interruption
// in between, or the instruction set among those with a fused multiply-add.
//
// A block's sums are eight chains of 128 multiply-adds, added up; blocks are added with their
// rounding errors kept beside. The error of a sum is bounded by about 140·2⁻⁵³ of the sum of its
// terms' sizes, for any n.
#pragma once

#include <cstdint>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

constexpr std::int64_t kGramBlockRows = 1024;

struct GramShape {
  std::int64_t d = 0;  // columns of X
  std::int64_t k = 0;  // columns of Y
  std::int64_t folds = 1;
  std::int64_t width() const { return d + k + 1; }  // of a pending row: x, y, weight
};

// Negative sizes, no column, no fold, and sizes whose arrays have more than 2^63 bytes.
Status ValidateGram(const GramShape& shape);

// Numbers of one fold's sums, for a valid shape; how they lie is the engine's affair.
std::int64_t GramSumsSize(std::int64_t d, std::int64_t k);

// A state, in memory of the caller, who begins with zeros in sums and rows.
struct GramState {
  GramShape shape;
  double* sums;          // [folds, 2, GramSumsSize]: of the blocks, and what rounding took off
  double* pending;       // [folds, kGramBlockRows, width]: the first rows % kGramBlockRows are used
  std::int64_t* rows;    // [folds]: taken so far
  const double* scale;   // [d + k]: powers of two
  const double* offset;  // [d + k]: −shift·scale
};

// The rows of a batch. Types need not be those of the batch before.
struct GramBatch {
  std::int64_t n = 0;
  DType x_type = DType::kFloat64;
  DType y_type = DType::kFloat64;
  DType weight_type = DType::kFloat64;
  const void* x = nullptr;              // [n, d]
  const void* y = nullptr;              // [n, k]
  const void* sample_weight = nullptr;  // [n], or null for ones
  const std::int64_t* fold = nullptr;   // [n], each in [0, folds); null: all in fold 0
};

struct GramResult {
  double* xx;      // [d, d], symmetric
  double* xy;      // [d, k]
  double* yy;      // [k]: Σ s t² of each target
  double* x_sum;   // [d]
  double* y_sum;   // [k]
  double* weight;  // []
};

namespace cpu {

// Bytes of workspace (64-byte aligned, uninitialised) that GramUpdate needs for n rows, and
// GramSum for any number of folds.
std::int64_t GramUpdateWorkspaceBytes(const GramState& state, std::int64_t n, int threads);
std::int64_t GramSumWorkspaceBytes(const GramState& state, int threads);

// Appends the batch. A cancelled call has appended the first rows of the batch, and `state->rows`
// says how many: the state is good.
Status GramUpdate(const GramState& state, const GramBatch& batch, const Cancellable& cancellable,
                  const Threads& threads, void* workspace, std::int64_t workspace_bytes,
                  const char* isa = nullptr);

// Adds what `other`, of the same shape, scale and offset, has taken: its whole blocks' sums to
// those here, then its pending rows as rows. The workspace is GramUpdate's for kGramBlockRows rows.
Status GramMerge(const GramState& state, const GramState& other, const Threads& threads,
                 void* workspace, std::int64_t workspace_bytes, const char* isa = nullptr);

// The sums over the rows of `count` folds, added up in that order.
Status GramSum(const GramState& state, const std::int64_t* folds, std::int64_t count,
               const GramResult& result, const Threads& threads, void* workspace,
               std::int64_t workspace_bytes, const char* isa = nullptr);

}  // namespace cpu
}  // namespace linreg_ops
