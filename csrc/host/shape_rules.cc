#include "host/shape_rules.h"

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>

namespace linreg_ops {
namespace {

// Makes two sizes, of which either may be unknown, the same. False if they differ.
bool Merge(std::int64_t size, std::int64_t* known) {
  if (*known == kUnknown) *known = size;
  return size == kUnknown || size == *known;
}

Status Refuse(const std::string& needs, const char* name, const ArrayShape& got,
              const ArrayShape& x) {
  return Status::InvalidArgument(std::string(name) + " must " + needs + ", got " + name +
                                 " of shape " + got.DebugString() + " for x of shape " +
                                 x.DebugString());
}

class Checker {
 public:
  Checker(const ProblemShapes& given, ProblemSizes* sizes)
      : given_(given), sizes_(*sizes), bias_(given.intercept ? 1 : 0) {
    sizes_ = ProblemSizes();
    sizes_.shape = {kUnknown, kUnknown, kUnknown, given.intercept};
  }

  Status Check() {
    Status status = CheckRanks();
    if (!status.ok() || sizes_.w_rank == kUnknown) return status;
    status = CheckW();
    if (status.ok() && given_.y) status = CheckY();
    if (status.ok() && given_.sample_weight) status = CheckSampleWeight();
    return status;
  }

 private:
  enum class Fit { kYes, kWrongCore, kWrongBatch };
  using Core = std::initializer_list<std::int64_t*>;

  // The ranks of x and w, as far as they follow from each other or from y's.
  Status CheckRanks() {
    const ArrayShape &x = given_.x, &w = given_.w;
    if (x.rank != kUnknown && (given_.batches ? x.rank < 2 : x.rank != 2)) {
      return Status::InvalidArgument(std::string("x must be [n, d]") +
                                     (given_.batches ? " (or [..., n, d])" : "") + ", got shape " +
                                     x.DebugString());
    }
    if (w.rank == 0 || (!given_.batches && w.rank > 2)) return RefuseW();
    sizes_.w_rank = w.rank;
    if (w.rank == kUnknown && given_.y && given_.y->rank > 0) sizes_.w_rank = given_.y->rank;
    if (sizes_.w_rank == kUnknown && x.rank > 2) sizes_.w_rank = x.rank;
    if (sizes_.w_rank == kUnknown) return Status();
    const std::int64_t x_rank = std::max<std::int64_t>(sizes_.w_rank, 2);
    if (x.rank != kUnknown && x.rank != x_rank) {
      return Refuse("have x's rank, or rank 1 with x of rank 2", "w", w, x);
    }
    sizes_.batch.assign(static_cast<std::size_t>(x_rank - 2), kUnknown);
    return Status();
  }

  Status CheckW() {
    Shape& shape = sizes_.shape;
    Merge(given_.x, {&shape.n, &shape.d});
    // No array is so wide: what is left out here, the kernels refuse.
    const bool overflows = shape.d == std::numeric_limits<std::int64_t>::max();
    if (shape.d != kUnknown) sizes_.w_rows = overflows ? shape.d : shape.d + bias_;
    if (rank_1()) shape.k = 1;
    const Fit fit =
        rank_1() ? Merge(given_.w, {&sizes_.w_rows}) : Merge(given_.w, {&sizes_.w_rows, &shape.k});
    if (fit == Fit::kWrongBatch) return RefuseBatch("w", given_.w);
    if (fit == Fit::kWrongCore) return RefuseW();
    if (shape.d == kUnknown && sizes_.w_rows >= bias_) shape.d = sizes_.w_rows - bias_;
    return Status();
  }

  Status CheckY() {
    Shape& shape = sizes_.shape;
    const Fit fit =
        rank_1() ? Merge(*given_.y, {&shape.n}) : Merge(*given_.y, {&shape.n, &shape.k});
    if (fit == Fit::kWrongBatch) return RefuseBatch("y", *given_.y);
    if (fit == Fit::kYes) return Status();
    return Status::InvalidArgument(
        std::string("y must be ") + (rank_1() ? "[n]" : "[n, k]") +
        " with n the rows of x and k the columns of w, got y of shape " + given_.y->DebugString() +
        " for x of shape " + given_.x.DebugString() + " and w of shape " + given_.w.DebugString());
  }

  Status CheckSampleWeight() {
    const ArrayShape& s = *given_.sample_weight;
    const Fit fit = Merge(s, {&sizes_.shape.n});
    if (fit == Fit::kWrongBatch) return RefuseBatch("sample_weight", s);
    if (fit == Fit::kYes) return Status();
    return Refuse("be [n], one weight per row of x", "sample_weight", s, given_.x);
  }

  // Merges an array's sizes, the leading dimensions and `core`, with what is known of them.
  Fit Merge(const ArrayShape& array, Core core) {
    if (array.rank == kUnknown) return Fit::kYes;
    const std::size_t leading = sizes_.batch.size();
    if (array.rank != static_cast<std::int64_t>(leading + core.size())) return Fit::kWrongCore;
    const std::int64_t* size = array.sizes + leading;
    for (std::int64_t* known : core) {
      if (!linreg_ops::Merge(*size++, known)) return Fit::kWrongCore;
    }
    for (std::size_t i = 0; i < leading; ++i) {
      if (!linreg_ops::Merge(array.sizes[i], &sizes_.batch[i])) return Fit::kWrongBatch;
    }
    return Fit::kYes;
  }

  bool rank_1() const { return sizes_.w_rank == 1; }

  Status RefuseW() const {
    return Refuse(
        std::string("be ") +
            (given_.intercept ? "[d + 1, k] or [d + 1] (intercept first)" : "[d, k] or [d]") +
            ", with d the last dimension of x",
        "w", given_.w, given_.x);
  }
  Status RefuseBatch(const char* name, const ArrayShape& got) const {
    return Refuse("have x's leading dimensions", name, got, given_.x);
  }

  const ProblemShapes& given_;
  ProblemSizes& sizes_;
  const std::int64_t bias_;
};

}  // namespace

std::string ArrayShape::DebugString() const {
  if (rank == kUnknown) return "<unknown>";
  std::string text = "[";
  for (std::int64_t i = 0; i < rank; ++i) {
    if (i > 0) text += ",";
    text += sizes[i] == kUnknown ? "?" : std::to_string(sizes[i]);
  }
  return text + "]";
}

Status CheckShapes(const ProblemShapes& given, ProblemSizes* sizes) {
  return Checker(given, sizes).Check();
}

Status CheckRates(const ArrayShape& learning_rate, std::optional<std::int64_t> num_steps) {
  if (num_steps) {
    if (Status status = ValidateSteps(*num_steps); !status.ok()) return status;
  }
  const ArrayShape& rate = learning_rate;
  std::int64_t steps = num_steps.value_or(kUnknown);
  if (rate.rank <= 0 || (rate.rank == 1 && Merge(rate.sizes[0], &steps))) return Status();
  return Status::InvalidArgument("learning_rate must be a scalar or have num_steps" +
                                 (num_steps ? "=" + std::to_string(*num_steps) : "") +
                                 " entries, got shape " + rate.DebugString());
}

Status CheckScalar(const char* name, const ArrayShape& shape) {
  if (shape.rank <= 0) return Status();
  return Status::InvalidArgument(std::string(name) + " must be a scalar, got shape " +
                                 shape.DebugString());
}

}  // namespace linreg_ops
