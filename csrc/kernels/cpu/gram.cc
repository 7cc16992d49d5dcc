// The Gram engine's driver: cuts batches into blocks, keeps what a block lacks rows for, merges
// states and writes the sums out.
#include "kernels/gram.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gram_blocks.h"
#include "kernels/cpu/gram_kernel.h"
#include "kernels/cpu/gram_layout.h"
#include "kernels/cpu/plan.h"
#include "kernels/sizes.h"

namespace linreg_ops {

Status ValidateGram(const GramShape& shape) {
  const auto refuse = [&](const std::string& what) {
    return Status::InvalidArgument(what + ", got d=" + std::to_string(shape.d) +
                                   ", k=" + std::to_string(shape.k) +
                                   ", folds=" + std::to_string(shape.folds));
  };
  if (shape.d < 0 || shape.k < 0) return refuse("d and k must not be negative");
  if (shape.d == 0 && shape.k == 0) return refuse("d + k must be at least 1");
  if (shape.folds < 1) return refuse("folds must be at least 1");
  // More than a state and its workspace take.
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  if (shape.d < kMost && shape.k < kMost) {
    const std::int64_t d = shape.d + 64, width = shape.d + shape.k + 64;
    const std::int64_t sums = SaturatingProduct({d, width, 2 * sizeof(double), 4, shape.folds});
    const std::int64_t pending =
        SaturatingProduct({width, kGramBlockRows, sizeof(double), 4, shape.folds});
    if (std::max(sums, pending) < std::int64_t{1} << 60) return Status();
  }
  return refuse("the sums would have more bytes than there are");
}

std::int64_t GramSumsSize(std::int64_t d, std::int64_t k) { return cpu::GramLayout(d, k).size(); }

namespace cpu {
namespace {

const struct {
  const char* isa;
  const GramKernels& kernels;
} kTable[] = {
#if defined(__x86_64__)
#ifndef LINREG_OPS_WITHOUT_AVX512
    {"avx512", kAvx512Gram},
#endif
#ifndef LINREG_OPS_WITHOUT_AVX2
    {"avx2", kAvx2Gram},
#endif
#elif defined(__aarch64__)
    {"neon", kNeonGram},
#endif
    {"scalar", kScalarGram},
};

Status FindGram(const char* isa, const GramKernels** gram) {
  const Kernels* unused = nullptr;  // only which instruction set that is
  if (Status s = FindKernels(isa, DType::kFloat64, DType::kFloat64, &isa, &unused); !s.ok()) {
    return s;
  }
  for (const auto& row : kTable) {
    if (std::strcmp(row.isa, isa) == 0) {
      *gram = &row.kernels;
      return Status();
    }
  }
  return {Status::Code::kInternal, std::string("no Gram kernels for ") + isa};
}

// The rows to append, from whatever memory.
struct Rows {
  std::int64_t n;
  GramArray x, y;
  const void* weights;  // null: ones
  DType weight_type;
  std::int64_t weight_stride;
  const std::int64_t* fold;  // null: all in only_fold
  std::int64_t only_fold;
};

const void* At(const GramArray& array, std::int64_t row) {
  if (array.data == nullptr) return nullptr;
  return static_cast<const char*>(array.data) +
         row * array.stride * static_cast<std::int64_t>(SizeOf(array.type));
}
GramArray From(const GramArray& array, std::int64_t row) {
  return {At(array, row), array.type, array.stride, array.end};
}
const void* WeightAt(const Rows& rows, std::int64_t row) {
  return static_cast<const char*>(rows.weights) +
         row * rows.weight_stride * static_cast<std::int64_t>(SizeOf(rows.weight_type));
}

double* Pending(const GramState& s, std::int64_t fold) {
  return s.pending + fold * kGramBlockRows * s.shape.width();
}
std::int64_t PendingRows(const GramState& s, std::int64_t fold) {
  return s.rows[fold] % kGramBlockRows;
}
double* Sums(const GramState& s, const GramLayout& layout, std::int64_t fold) {
  return s.sums + fold * 2 * layout.size();
}

// Whether all of `n` rows can wait for more, whatever folds they are in.
bool AllWait(const GramState& s, std::int64_t n) {
  for (std::int64_t f = 0; f < s.shape.folds; ++f) {
    if (PendingRows(s, f) + n >= kGramBlockRows) return false;
  }
  return true;
}

// Where things lie in GramUpdate's workspace. A chunk of rows is taken at a time.
struct UpdateLayout {
  UpdateLayout(const GramState& state, std::int64_t n, int threads)
      : sums(state.shape.d, state.shape.k),
        blocks(sums, n / kGramBlockRows + 1, threads),
        chunk_rows(blocks.blocks * kGramBlockRows) {
    Reserve reserve;
    const std::int64_t folds = state.shape.folds;
    scales_offset = reserve(2 * sums.panels * kGramPanel * sizeof(double));
    list_offset = reserve((blocks.blocks + folds) * sizeof(GramBlock));
    weights_offset = reserve(chunk_rows * sizeof(double));
    index_offset = reserve((chunk_rows + 2 * (folds + 1)) * sizeof(std::int64_t));
    blocks_offset = reserve(blocks.workspace_bytes);
    bytes = reserve.bytes();
  }

  GramLayout sums;
  GramBlocksPlan blocks;
  std::int64_t chunk_rows;
  std::int64_t scales_offset, list_offset, weights_offset, index_offset, blocks_offset, bytes;
};

// Scale and offset of the columns, each array's padded to whole panels with zeros.
void PadScales(const GramState& state, const GramLayout& layout, double* to, GramInput* input) {
  const std::int64_t d = layout.d, k = layout.k;
  const std::int64_t x_size = layout.x_panels * kGramPanel, y_size = layout.y_panels() * kGramPanel;
  const auto pad = [&to](const double* from, std::int64_t count, std::int64_t size) {
    std::copy(from, from + count, to);
    std::fill(to + count, to + size, 0.0);
    to += size;
    return to - size;
  };
  input->x_scale = pad(state.scale, d, x_size);
  input->x_offset = pad(state.offset, d, x_size);
  input->y_scale = pad(state.scale + d, k, y_size);
  input->y_offset = pad(state.offset + d, k, y_size);
}

class Update {
 public:
  Update(const GramState& state, const UpdateLayout& layout, const GramKernels& kernels,
         const Threads& threads, char* workspace)
      : state_(state),
        layout_(layout),
        kernels_(kernels),
        threads_(threads),
        blocks_(reinterpret_cast<GramBlock*>(workspace + layout.list_offset)),
        weights_(reinterpret_cast<double*>(workspace + layout.weights_offset)),
        index_(reinterpret_cast<std::int64_t*>(workspace + layout.index_offset)),
        workspace_(workspace + layout.blocks_offset) {
    PadScales(state, layout.sums, reinterpret_cast<double*>(workspace + layout.scales_offset),
              &input_);
  }

  // Takes rows from `begin` on, and returns how many.
  std::int64_t Chunk(const Rows& rows, std::int64_t begin) {
    const bool sorted = rows.fold != nullptr && state_.shape.folds > 1;
    const std::int64_t fold = rows.fold != nullptr ? 0 : rows.only_fold;
    std::int64_t count = layout_.chunk_rows - (sorted ? 0 : PendingRows(state_, fold));
    count = std::min(count, rows.n - begin);
    input_.x = From(rows.x, begin);
    input_.y = From(rows.y, begin);
    Widen(rows, begin, count);
    listed_ = 0;
    if (sorted) {
      Sort(rows.fold + begin, count);
      for (std::int64_t f = 0; f < state_.shape.folds; ++f) {
        List(f, index_ + Begins()[f], Begins()[f + 1] - Begins()[f]);
      }
    } else {
      List(fold, nullptr, count);
    }
    AddGramBlocks(layout_.sums, kernels_, layout_.blocks, input_, blocks_, listed_, threads_,
                  workspace_);
    for (std::int64_t f = 0; sorted && f < state_.shape.folds; ++f) {
      Keep(f, index_ + Begins()[f], Begins()[f + 1] - Begins()[f]);
    }
    if (!sorted) Keep(fold, nullptr, count);
    return count;
  }

 private:
  std::int64_t* Begins() const { return index_ + layout_.chunk_rows; }

  // The chunk's weights as doubles.
  void Widen(const Rows& rows, std::int64_t begin, std::int64_t count) {
    input_.weights = rows.weights == nullptr ? nullptr : weights_;
    if (rows.weights == nullptr) return;
    const auto widen = kernels_.widen[static_cast<int>(rows.weight_type)];
    if (rows.weight_stride == 1) return widen(WeightAt(rows, begin), weights_, count);
    for (std::int64_t i = 0; i < count; ++i) widen(WeightAt(rows, begin + i), weights_ + i, 1);
  }

  // The chunk's rows in the order of their folds: index_ has those of fold f from Begins()[f] on.
  void Sort(const std::int64_t* fold, std::int64_t count) {
    const std::int64_t folds = state_.shape.folds;
    std::int64_t* const begins = Begins();
    std::int64_t* const next = begins + folds + 1;
    std::fill(begins, begins + folds + 1, 0);
    for (std::int64_t i = 0; i < count; ++i) ++begins[fold[i] + 1];
    for (std::int64_t f = 0; f < folds; ++f) begins[f + 1] += begins[f];
    std::copy(begins, begins + folds, next);
    for (std::int64_t i = 0; i < count; ++i) index_[next[fold[i]]++] = i;
  }

  // Lists the blocks that `count` rows complete.
  void List(std::int64_t fold, const std::int64_t* index, std::int64_t count) {
    double* const sum = Sums(state_, layout_.sums, fold);
    std::int64_t pending = PendingRows(state_, fold);
    for (std::int64_t row = 0; row + kGramBlockRows - pending <= count; pending = 0) {
      const std::int64_t rows = kGramBlockRows - pending;
      blocks_[listed_++] = {sum,
                            sum + layout_.sums.size(),
                            Pending(state_, fold),
                            pending,
                            index == nullptr ? nullptr : index + row,
                            row,
                            rows};
      row += rows;
    }
  }

  // Keeps the rows that complete no block.
  void Keep(std::int64_t fold, const std::int64_t* index, std::int64_t count) {
    const std::int64_t total = state_.rows[fold] + count;
    const std::int64_t kept = std::min(total % kGramBlockRows, count);
    double* to = Pending(state_, fold) + (total % kGramBlockRows - kept) * state_.shape.width();
    for (std::int64_t i = count - kept; i < count; ++i) {
      const std::int64_t row = index == nullptr ? i : index[i];
      KeepRow(At(input_.x, row), At(input_.y, row), to);
      to[state_.shape.width() - 1] = input_.weights == nullptr ? 1.0 : input_.weights[row];
      to += state_.shape.width();
    }
    state_.rows[fold] = total;
  }
  void KeepRow(const void* x, const void* y, double* to) const {
    kernels_.widen[static_cast<int>(input_.x.type)](x, to, state_.shape.d);
    kernels_.widen[static_cast<int>(input_.y.type)](y, to + state_.shape.d, state_.shape.k);
  }

  const GramState& state_;
  const UpdateLayout& layout_;
  const GramKernels& kernels_;
  const Threads& threads_;
  GramBlock* const blocks_;
  double* const weights_;
  std::int64_t* const index_;
  char* const workspace_;
  GramInput input_ = {};
  std::int64_t listed_ = 0;
};

Status CheckWorkspace(const void* workspace, std::int64_t given, std::int64_t needed) {
  if (given >= needed && workspace != nullptr) return Status();
  return Status::InvalidArgument("workspace has " + std::to_string(given) + " bytes, needs " +
                                 std::to_string(needed));
}

Status CheckFolds(const std::int64_t* fold, std::int64_t count, std::int64_t folds) {
  for (std::int64_t i = 0; fold != nullptr && i < count; ++i) {
    if (fold[i] < 0 || fold[i] >= folds) {
      return Status::InvalidArgument("fold must hold numbers from 0 to " +
                                     std::to_string(folds - 1) + ", got " +
                                     std::to_string(fold[i]) + " at " + std::to_string(i));
    }
  }
  return Status();
}

// A state may come from a file, with any number in it.
Status CheckRows(std::int64_t rows, std::int64_t more) {
  if (rows >= 0 && more >= 0 && rows <= std::numeric_limits<std::int64_t>::max() - more) {
    return Status();
  }
  return Status::InvalidArgument("a fold's rows must be from 0 to 2^63 - 1, got " +
                                 std::to_string(rows) + " and " + std::to_string(more) + " more");
}

Status CheckBatch(const GramState& state, const GramBatch& batch) {
  const GramShape& shape = state.shape;
  if (Status s = ValidateGram(shape); !s.ok()) return s;
  if (batch.n < 0) {
    return Status::InvalidArgument("n must not be negative, got " + std::to_string(batch.n));
  }
  const bool missing_x = batch.x == nullptr && batch.n > 0 && shape.d > 0;
  const bool missing_y = batch.y == nullptr && batch.n > 0 && shape.k > 0;
  if (missing_x || missing_y) {
    return Status::InvalidArgument(std::string(missing_x ? "x" : "y") + " is missing");
  }
  if (batch.fold == nullptr && shape.folds > 1) {
    return Status::InvalidArgument("fold is missing, for a state of " +
                                   std::to_string(shape.folds) + " folds");
  }
  for (std::int64_t f = 0; f < shape.folds; ++f) {
    if (Status s = CheckRows(state.rows[f], batch.n); !s.ok()) return s;
  }
  return CheckFolds(batch.fold, batch.n, shape.folds);
}

bool Alike(const GramState& a, const GramState& b) {
  const std::int64_t columns = a.shape.d + a.shape.k;
  return a.shape.d == b.shape.d && a.shape.k == b.shape.k && a.shape.folds == b.shape.folds &&
         std::equal(a.scale, a.scale + columns, b.scale) &&
         std::equal(a.offset, a.offset + columns, b.offset);
}

GramArray ArrayOf(const void* data, DType type, std::int64_t n, std::int64_t columns) {
  GramArray array = {data, type, columns, data};
  if (data != nullptr) array.end = At(array, n);
  return array;
}

void AddErrors(const double* add, double* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] += add[i];
}

// A sum that is not finite has no error to correct.
double Corrected(double sum, double error) { return error - error == 0 ? sum + error : sum; }

void WriteTile(const GramLayout& layout, std::int64_t p, std::int64_t q, const double* sum,
               const double* error, const GramResult& result) {
  const std::int64_t d = layout.d, k = layout.k;
  for (std::int64_t r = 0; r < kGramPanel; ++r) {
    const std::int64_t i = p * kGramPanel + r, target = i - layout.x_panels * kGramPanel;
    for (std::int64_t c = 0; c < kGramPanel; ++c) {
      const std::int64_t j = q * kGramPanel + c;
      if (j >= d) break;
      const double value = Corrected(sum[r * kGramPanel + c], error[r * kGramPanel + c]);
      if (p >= layout.x_panels) {
        if (target < k) result.xy[j * k + target] = value;
      } else if (i <= j) {
        result.xx[i * d + j] = result.xx[j * d + i] = value;
      }
    }
  }
}

void Write(const GramLayout& layout, const double* sum, const GramResult& result) {
  const double* const error = sum + layout.size();
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    for (std::int64_t q = layout.RightBegin(g); q < layout.x_panels; ++q) {
      const std::int64_t begin = layout.TilesBefore(g, q), end = layout.TilesBefore(g, q + 1);
      for (std::int64_t tile = begin; tile < end; ++tile) {
        WriteTile(layout, layout.GroupBegin(g) + tile - begin, q, sum + tile * kGramTile,
                  error + tile * kGramTile, result);
      }
    }
  }
  const auto margin = [&](std::int64_t from, std::int64_t count, double* to) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = Corrected(sum[from + i], error[from + i]);
  };
  margin(layout.x_sum(), layout.d, result.x_sum);
  margin(layout.y_sum(), layout.k, result.y_sum);
  margin(layout.squares(), layout.k, result.yy);
  margin(layout.weight(), 1, result.weight);
}

struct SumLayout {
  SumLayout(const GramState& state, int threads)
      : sums(state.shape.d, state.shape.k), blocks(sums, 1, threads) {
    Reserve reserve;
    total_offset = reserve(2 * sums.size() * sizeof(double));
    scales_offset = reserve(2 * sums.panels * kGramPanel * sizeof(double));
    blocks_offset = reserve(blocks.workspace_bytes);
    bytes = reserve.bytes();
  }

  GramLayout sums;
  GramBlocksPlan blocks;
  std::int64_t total_offset, scales_offset, blocks_offset, bytes;
};

}  // namespace

std::int64_t GramUpdateWorkspaceBytes(const GramState& state, std::int64_t n, int threads) {
  return UpdateLayout(state, AllWait(state, n) ? 0 : n, threads).bytes;
}

std::int64_t GramSumWorkspaceBytes(const GramState& state, int threads) {
  return SumLayout(state, threads).bytes;
}

Status GramUpdate(const GramState& state, const GramBatch& batch, const Cancellable& cancellable,
                  const Threads& threads, void* workspace, std::int64_t workspace_bytes,
                  const char* isa) {
  if (Status s = CheckBatch(state, batch); !s.ok()) return s;
  const GramKernels* kernels = nullptr;
  if (Status s = FindGram(isa, &kernels); !s.ok()) return s;
  const UpdateLayout layout(state, AllWait(state, batch.n) ? 0 : batch.n, threads.count);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  const Rows rows = {batch.n,
                     ArrayOf(batch.x, batch.x_type, batch.n, state.shape.d),
                     ArrayOf(batch.y, batch.y_type, batch.n, state.shape.k),
                     batch.sample_weight,
                     batch.weight_type,
                     1,
                     batch.fold,
                     0};
  Update update(state, layout, *kernels, threads, static_cast<char*>(workspace));
  for (std::int64_t done = 0; done < batch.n;) {
    if (cancellable.cancelled != nullptr && cancellable.cancelled(cancellable.cancelled_context)) {
      return {Status::Code::kCancelled, "cancelled after " + std::to_string(done) + " rows"};
    }
    done += update.Chunk(rows, done);
  }
  return Status();
}

Status GramMerge(const GramState& state, const GramState& other, const Threads& threads,
                 void* workspace, std::int64_t workspace_bytes, const char* isa) {
  if (Status s = ValidateGram(state.shape); !s.ok()) return s;
  if (!Alike(state, other)) {
    return Status::InvalidArgument("other must have the same shape, scale and offset");
  }
  for (std::int64_t f = 0; f < state.shape.folds; ++f) {
    if (Status s = CheckRows(state.rows[f], other.rows[f]); !s.ok()) return s;
  }
  const GramKernels* kernels = nullptr;
  if (Status s = FindGram(isa, &kernels); !s.ok()) return s;
  const UpdateLayout layout(state, kGramBlockRows, threads.count);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  Update update(state, layout, *kernels, threads, static_cast<char*>(workspace));
  const std::int64_t size = layout.sums.size(), width = state.shape.width();
  for (std::int64_t f = 0; f < state.shape.folds; ++f) {
    double* const sum = Sums(state, layout.sums, f);
    const double* const add = Sums(other, layout.sums, f);
    kernels->accumulate(add, sum, sum + size, size);
    AddErrors(add + size, sum + size, size);
    const std::int64_t waiting = PendingRows(other, f);
    state.rows[f] += other.rows[f] - waiting;
    const double* const rows = Pending(other, f);
    const GramArray x = {rows, DType::kFloat64, width, rows + waiting * width};
    const GramArray y = {rows + state.shape.d, DType::kFloat64, width, x.end};
    const Rows pending = {waiting, x, y, rows + width - 1, DType::kFloat64, width, nullptr, f};
    for (std::int64_t done = 0; done < waiting;) done += update.Chunk(pending, done);
  }
  return Status();
}

Status GramSum(const GramState& state, const std::int64_t* folds, std::int64_t count,
               const GramResult& result, const Threads& threads, void* workspace,
               std::int64_t workspace_bytes, const char* isa) {
  if (Status s = ValidateGram(state.shape); !s.ok()) return s;
  if (Status s = CheckFolds(folds, count, state.shape.folds); !s.ok()) return s;
  const GramKernels* kernels = nullptr;
  if (Status s = FindGram(isa, &kernels); !s.ok()) return s;
  const SumLayout layout(state, threads.count);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  char* const base = static_cast<char*>(workspace);
  const std::int64_t size = layout.sums.size();
  double* const total = reinterpret_cast<double*>(base + layout.total_offset);
  std::fill(total, total + 2 * size, 0.0);
  GramInput input = {};
  PadScales(state, layout.sums, reinterpret_cast<double*>(base + layout.scales_offset), &input);
  for (std::int64_t i = 0; i < count; ++i) {
    const double* const sum = Sums(state, layout.sums, folds[i]);
    kernels->accumulate(sum, total, total + size, size);
    AddErrors(sum + size, total + size, size);
    const std::int64_t waiting = PendingRows(state, folds[i]);
    const GramBlock block = {
        total, total + size, Pending(state, folds[i]), waiting, nullptr, waiting, 0};
    AddGramBlocks(layout.sums, *kernels, layout.blocks, input, &block, waiting > 0 ? 1 : 0, threads,
                  base + layout.blocks_offset);
  }
  Write(layout.sums, total, result);
  return Status();
}

}  // namespace cpu
}  // namespace linreg_ops
