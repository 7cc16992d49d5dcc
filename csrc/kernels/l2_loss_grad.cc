// The parts of the kernel API that every device shares: type names and the checks on a problem.
#include "kernels/l2_loss_grad.h"

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

namespace linreg_ops {
namespace {

// No array may exceed what a signed 64-bit byte offset reaches, with room for the caller's padding.
constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max() / 16;

bool FitsInMemory(std::initializer_list<std::int64_t> sizes, std::size_t element_size) {
  std::int64_t bytes = static_cast<std::int64_t>(element_size);
  for (const std::int64_t size : sizes) {
    if (size == 0) return true;
  }
  for (const std::int64_t size : sizes) {
    if (size > kMaxBytes / bytes) return false;
    bytes *= size;
  }
  return true;
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

Status ValidateSizes(const Data& data) {
  const Shape& shape = data.shape;
  if (shape.n < 0 || shape.d < 0 || shape.k < 0) {
    return Status::InvalidArgument("sizes must not be negative, got " + Describe(shape));
  }
  if (SizeOf(data.x_type) == 0 || SizeOf(data.w_type) == 0) {
    return Status::InvalidArgument("unknown element type");
  }
  const bool same = data.x_type == data.w_type;
  const bool mixed = SizeOf(data.x_type) == 2 && data.w_type == DType::kFloat32;
  if (!same && !mixed) {
    return Status::InvalidArgument(
        std::string("w must have x's type, or float32 when x is float16 or bfloat16; got x of ") +
        NameOf(data.x_type) + " and w of " + NameOf(data.w_type));
  }
  // The widest element (a float64 accumulator) bounds every array that a kernel makes.
  if (shape.d == std::numeric_limits<std::int64_t>::max() ||
      !FitsInMemory({shape.n, shape.weight_rows()}, sizeof(double)) ||
      !FitsInMemory({shape.n, shape.k}, sizeof(double)) ||
      !FitsInMemory({shape.weight_rows(), shape.k}, sizeof(double))) {
    return Status::InvalidArgument("sizes overflow 64-bit offsets: " + Describe(shape));
  }
  return Status();
}

Status Validate(const Data& data) {
  if (Status status = ValidateSizes(data); !status.ok()) return status;
  const Shape& shape = data.shape;
  if (data.x == nullptr && shape.n > 0 && shape.d > 0) return MissingArray("x");
  if (data.w == nullptr && shape.weight_rows() > 0 && shape.k > 0) return MissingArray("w");
  return Status();
}

Status Validate(const Data& data, const Descent& descent) {
  if (Status status = Validate(data); !status.ok()) return status;
  if (descent.num_steps < 0 || descent.num_steps > kMaxBytes / 8) {
    return Status::InvalidArgument("num_steps must be between 0 and 2^56, got " +
                                   std::to_string(descent.num_steps));
  }
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
