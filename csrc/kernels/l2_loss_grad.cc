// The parts of the kernel API that every device shares: type names and the checks on a problem.
#include "kernels/l2_loss_grad.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/sizes.h"

namespace linreg_ops {
namespace {

// The most elements of an array, where a size of 0 counts as 1: X of no columns still has rows to
// count. In float64, the widest there is, they leave room for padding within 64-bit byte offsets.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 56;

bool Fits(std::int64_t a, std::int64_t b) {
  return SaturatingProduct({std::max<std::int64_t>(a, 1), std::max<std::int64_t>(b, 1)}) <=
         kMaxElements;
}

std::string Describe(const Shape& shape) {
  return "n=" + std::to_string(shape.n) + ", d=" + std::to_string(shape.d) +
         ", k=" + std::to_string(shape.k);
}

Status MissingArray(const char* name) {
  return Status::InvalidArgument(std::string(name) + " is a null pointer, but has elements");
}

}  // namespace

std::size_t SizeOf(DType type) {
  switch (type) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
  }
  return 0;
}

const char* NameOf(DType type) {
  switch (type) {
    case DType::kFloat64:
      return "float64";
    case DType::kFloat32:
      return "float32";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
  }
  return "unknown";
}

Status ValidateSizes(const Shape& shape) {
  if (shape.n < 0 || shape.d < 0 || shape.k < 0) {
    return Status::InvalidArgument("sizes must not be negative, got " + Describe(shape));
  }
  if (shape.d >= kMaxElements || !Fits(shape.n, shape.weight_rows()) || !Fits(shape.n, shape.k) ||
      !Fits(shape.weight_rows(), shape.k)) {
    return Status::InvalidArgument("sizes overflow 64-bit offsets: " + Describe(shape));
  }
  return Status();
}

Status ValidateTypes(DType x_type, DType w_type) {
  if (SizeOf(x_type) == 0 || SizeOf(w_type) == 0) {
    return Status::InvalidArgument("unknown element type");
  }
  const bool half = SizeOf(x_type) == 2;
  if (x_type == w_type || (half && w_type == DType::kFloat32)) return Status();
  return Status::InvalidArgument(std::string("w must have x's dtype, ") + NameOf(x_type) +
                                 (half ? " or float32" : "") + ", got " + NameOf(w_type));
}

Status ValidateSteps(std::int64_t num_steps) {
  if (num_steps < 0) {
    return Status::InvalidArgument("num_steps must not be negative, got " +
                                   std::to_string(num_steps));
  }
  if (num_steps > kMaxSteps) {
    return Status::InvalidArgument("num_steps must be at most 2^40, got " +
                                   std::to_string(num_steps));
  }
  return Status();
}

Status Validate(const Data& data) {
  const Shape& shape = data.shape;
  if (Status status = ValidateTypes(data.x_type, data.w_type); !status.ok()) return status;
  if (Status status = ValidateSizes(shape); !status.ok()) return status;
  if (data.x == nullptr && shape.n > 0 && shape.d > 0) return MissingArray("x");
  if (data.w == nullptr && shape.weight_rows() > 0 && shape.k > 0) return MissingArray("w");
  return Status();
}

Status Validate(const Data& data, const Descent& descent) {
  if (Status status = Validate(data); !status.ok()) return status;
  if (Status status = ValidateSteps(descent.num_steps); !status.ok()) return status;
  if (descent.num_rates != 1 && descent.num_rates != descent.num_steps) {
    return Status::InvalidArgument(
        "learning_rate must be a scalar or have num_steps=" + std::to_string(descent.num_steps) +
        " entries, got " + std::to_string(descent.num_rates));
  }
  if (descent.rates == nullptr && descent.num_rates > 0) return MissingArray("learning_rate");
  if (descent.losses == nullptr) return MissingArray("losses");
  if (descent.w == nullptr && data.shape.weight_rows() > 0 && data.shape.k > 0) {
    return MissingArray("w (the output)");
  }
  return Status();
}

}  // namespace linreg_ops
