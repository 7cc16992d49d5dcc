// Which shapes make a problem, and what the error says where they do not: one set of rules and
// messages for TensorFlow's ops and shape functions, XLA, NumPy and DLPack. A shape function knows
// some sizes and not others; what is unknown fits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

constexpr std::int64_t kUnknown = -1;

// The sizes of an array, borrowed. An unknown rank is kUnknown, and so is an unknown size.
struct ArrayShape {
  const std::int64_t* sizes = nullptr;
  std::int64_t rank = kUnknown;

  ArrayShape() = default;
  ArrayShape(const std::int64_t* sizes, std::int64_t rank) : sizes(sizes), rank(rank) {}
  template <class Container>  // a std::vector, say, or absl's
  explicit ArrayShape(const Container& container)
      : ArrayShape(container.data(), static_cast<std::int64_t>(container.size())) {}

  std::string DebugString() const;  // "[4,3]", "[?,3]" or "<unknown>"
};

struct ProblemShapes {
  ArrayShape x;                             // [n, d], or [..., n, d] with `batches`
  ArrayShape w;                             // [d + intercept, k], or [d + intercept]
  std::optional<ArrayShape> y;              // [n, k], or [n]
  std::optional<ArrayShape> sample_weight;  // [n]
  bool intercept = false;
  bool batches = false;  // every array may have the same leading dimensions
};

// What the shapes agree on. Sizes that none of them knows are kUnknown.
struct ProblemSizes {
  Shape shape;
  std::int64_t w_rank = kUnknown;
  std::int64_t w_rows = kUnknown;   // d + intercept
  std::vector<std::int64_t> batch;  // the leading dimensions; of no meaning if w_rank is unknown
};
Status CheckShapes(const ProblemShapes& given, ProblemSizes* sizes);

// learning_rate is a scalar, or one rate a step; and num_steps, if it is known, is one.
Status CheckRates(const ArrayShape& learning_rate, std::optional<std::int64_t> num_steps);

// `name` is a scalar.
Status CheckScalar(const char* name, const ArrayShape& shape);

}  // namespace linreg_ops
