#include "tf/problem.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace linreg_ops {
namespace {

using tensorflow::Tensor;
using tensorflow::TensorShape;

absl::Status KernelType(tensorflow::DataType type, DType* out) {
  switch (type) {
    case tensorflow::DT_FLOAT:
      *out = DType::kFloat32;
      return absl::OkStatus();
    case tensorflow::DT_DOUBLE:
      *out = DType::kFloat64;
      return absl::OkStatus();
    case tensorflow::DT_HALF:
      *out = DType::kFloat16;
      return absl::OkStatus();
    case tensorflow::DT_BFLOAT16:
      *out = DType::kBFloat16;
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("no kernel for ", tensorflow::DataTypeString(type)));
  }
}

const void* Advance(const void* base, std::int64_t elements, DType type) {
  if (base == nullptr) return nullptr;
  return static_cast<const char*>(base) + elements * static_cast<std::int64_t>(SizeOf(type));
}

bool StartsWith(const TensorShape& shape, const TensorShape& prefix) {
  if (shape.dims() < prefix.dims()) return false;
  for (int i = 0; i < prefix.dims(); ++i) {
    if (shape.dim_size(i) != prefix.dim_size(i)) return false;
  }
  return true;
}

}  // namespace

absl::Status ToAbsl(const Status& status) {
  switch (status.code()) {
    case Status::Code::kOk:
      return absl::OkStatus();
    case Status::Code::kInvalidArgument:
      return absl::InvalidArgumentError(status.message());
    case Status::Code::kUnsupported:
      return absl::UnimplementedError(status.message());
    case Status::Code::kCancelled:
      return absl::CancelledError(status.message());
    case Status::Code::kInternal:
      break;
  }
  return absl::InternalError(status.message());
}

Data Problem::at(std::int64_t index) const {
  Data data = first;
  const Shape& s = data.shape;
  data.x = Advance(first.x, index * s.n * s.d, first.x_type);
  data.w = Advance(first.w, index * s.weight_rows() * s.k, first.w_type);
  data.y = Advance(first.y, index * s.n * s.k, first.w_type);
  data.sample_weight = Advance(first.sample_weight, index * s.n, first.w_type);
  return data;
}

void* Problem::Offset(void* base, std::int64_t index, std::int64_t elements) const {
  return const_cast<void*>(Advance(base, index * elements, first.w_type));
}

absl::Status MakeProblem(const Tensor& x, const Tensor& w, const Tensor* y,
                         const Tensor* sample_weight, bool intercept, Problem* problem) {
  const auto mismatch = [&x](const std::string& what, const char* name, const Tensor& got) {
    return absl::InvalidArgumentError(absl::StrCat(what, ", got ", name, " of shape ",
                                                   got.shape().DebugString(), " for x of shape ",
                                                   x.shape().DebugString()));
  };
  const int rank = w.dims();
  if (x.dims() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("x must be [n, d] (or [..., n, d]), got shape ", x.shape().DebugString()));
  }
  if (rank != x.dims() && !(rank == 1 && x.dims() == 2)) {
    return mismatch("w must have x's rank, or rank 1 with x of rank 2", "w", w);
  }
  Data& data = problem->first;
  Shape& shape = data.shape;
  shape.n = x.dim_size(x.dims() - 2);
  shape.d = x.dim_size(x.dims() - 1);
  shape.k = rank == 1 ? 1 : w.dim_size(rank - 1);
  shape.intercept = intercept;
  problem->weight_shape = w.shape();
  for (int i = 0; i < x.dims() - 2; ++i) {
    problem->batch_shape.AddDim(x.dim_size(i));
    problem->batch *= x.dim_size(i);
  }

  if (w.dim_size(rank == 1 ? 0 : rank - 2) != shape.weight_rows()) {
    return mismatch(intercept
                        ? "w must be [d + 1, k] or [d + 1] (intercept first), with d the last "
                          "dimension of x"
                        : "w must be [d, k] or [d], with d the last dimension of x",
                    "w", w);
  }
  if (!StartsWith(w.shape(), problem->batch_shape)) {
    return mismatch("w must have x's leading dimensions", "w", w);
  }
  if (y != nullptr) {
    TensorShape expected = problem->batch_shape;
    expected.AddDim(shape.n);
    if (rank > 1) expected.AddDim(shape.k);
    if (y->shape() != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat("y must be ", rank == 1 ? "[n]" : "[n, k]",
                       " with n the rows of x and k the columns of w, got y of shape ",
                       y->shape().DebugString(), " for x of shape ", x.shape().DebugString(),
                       " and w of shape ", w.shape().DebugString()));
    }
    data.y = y->data();
  }
  if (sample_weight != nullptr) {
    TensorShape expected = problem->batch_shape;
    expected.AddDim(shape.n);
    if (sample_weight->shape() != expected) {
      return mismatch("sample_weight must be [n], one weight per row of x", "sample_weight",
                      *sample_weight);
    }
    data.sample_weight = sample_weight->data();
  }
  if (absl::Status s = KernelType(x.dtype(), &data.x_type); !s.ok()) return s;
  if (absl::Status s = KernelType(w.dtype(), &data.w_type); !s.ok()) return s;
  data.x = x.data();
  data.w = w.data();
  return ToAbsl(Validate(data));
}

absl::Status GetSampleWeight(tensorflow::OpKernelContext* ctx, const Tensor** sample_weight) {
  tensorflow::OpInputList list;
  if (absl::Status s = ctx->input_list("sample_weight", &list); !s.ok()) return s;
  if (list.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("sample_weight must be one tensor or none, got ", list.size()));
  }
  *sample_weight = list.size() == 1 ? &list[0] : nullptr;
  return absl::OkStatus();
}

absl::Status MakeDescent(const Tensor& learning_rate, const Tensor& num_steps,
                         const Tensor& momentum, Descent* descent) {
  const auto scalar = [](const char* name, const Tensor& t) {
    return t.dims() == 0 ? absl::OkStatus()
                         : absl::InvalidArgumentError(absl::StrCat(
                               name, " must be a scalar, got shape ", t.shape().DebugString()));
  };
  if (absl::Status s = scalar("num_steps", num_steps); !s.ok()) return s;
  if (absl::Status s = scalar("momentum", momentum); !s.ok()) return s;
  descent->num_steps = num_steps.scalar<std::int64_t>()();
  if (descent->num_steps < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_steps must not be negative, got ", descent->num_steps));
  }
  if (learning_rate.dims() > 1 ||
      (learning_rate.dims() == 1 && learning_rate.dim_size(0) != descent->num_steps)) {
    return absl::InvalidArgumentError(
        absl::StrCat("learning_rate must be a scalar or have num_steps=", descent->num_steps,
                     " entries, got shape ", learning_rate.shape().DebugString()));
  }
  descent->rates = learning_rate.flat<double>().data();
  descent->num_rates = learning_rate.dims() == 0 ? 1 : descent->num_steps;
  descent->momentum = momentum.scalar<double>()();
  return absl::OkStatus();
}

}  // namespace linreg_ops
