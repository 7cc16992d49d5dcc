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

absl::Status CheckShapes(const TensorShape& x, const TensorShape& w, const TensorShape* y,
                         const TensorShape* sample_weight, bool intercept, Problem* problem) {
  const auto mismatch = [&x](const std::string& what, const char* name, const TensorShape& got) {
    return absl::InvalidArgumentError(absl::StrCat(what, ", got ", name, " of shape ",
                                                   got.DebugString(), " for x of shape ",
                                                   x.DebugString()));
  };
  const int rank = w.dims();
  if (x.dims() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("x must be [n, d] (or [..., n, d]), got shape ", x.DebugString()));
  }
  if (rank != x.dims() && !(rank == 1 && x.dims() == 2)) {
    return mismatch("w must have x's rank, or rank 1 with x of rank 2", "w", w);
  }
  Shape& shape = problem->first.shape;
  shape.n = x.dim_size(x.dims() - 2);
  shape.d = x.dim_size(x.dims() - 1);
  shape.k = rank == 1 ? 1 : w.dim_size(rank - 1);
  shape.intercept = intercept;
  problem->weight_shape = w;
  for (int i = 0; i < x.dims() - 2; ++i) {
    problem->batch_shape.AddDim(x.dim_size(i));
    problem->count *= x.dim_size(i);
  }

  if (w.dim_size(rank == 1 ? 0 : rank - 2) != shape.weight_rows()) {
    return mismatch(intercept
                        ? "w must be [d + 1, k] or [d + 1] (intercept first), with d the last "
                          "dimension of x"
                        : "w must be [d, k] or [d], with d the last dimension of x",
                    "w", w);
  }
  if (!StartsWith(w, problem->batch_shape)) {
    return mismatch("w must have x's leading dimensions", "w", w);
  }
  if (y != nullptr) {
    TensorShape expected = problem->batch_shape;
    expected.AddDim(shape.n);
    if (rank > 1) expected.AddDim(shape.k);
    if (*y != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "y must be ", rank == 1 ? "[n]" : "[n, k]",
          " with n the rows of x and k the columns of w, got y of shape ", y->DebugString(),
          " for x of shape ", x.DebugString(), " and w of shape ", w.DebugString()));
    }
  }
  if (sample_weight != nullptr) {
    TensorShape expected = problem->batch_shape;
    expected.AddDim(shape.n);
    if (*sample_weight != expected) {
      return mismatch("sample_weight must be [n], one weight per row of x", "sample_weight",
                      *sample_weight);
    }
  }
  return absl::OkStatus();
}

absl::Status MakeProblem(const Tensor& x, const Tensor& w, const Tensor* y,
                         const Tensor* sample_weight, bool intercept, Problem* problem) {
  const auto shape_of = [](const Tensor* t) { return t == nullptr ? nullptr : &t->shape(); };
  if (absl::Status s = CheckShapes(x.shape(), w.shape(), shape_of(y), shape_of(sample_weight),
                                   intercept, problem);
      !s.ok()) {
    return s;
  }
  Data& data = problem->first;
  if (absl::Status s = KernelType(x.dtype(), &data.x_type); !s.ok()) return s;
  if (absl::Status s = KernelType(w.dtype(), &data.w_type); !s.ok()) return s;
  data.x = x.data();
  data.w = w.data();
  if (y != nullptr) data.y = y->data();
  if (sample_weight != nullptr) data.sample_weight = sample_weight->data();
  // No problem has no arrays either: TensorFlow gives an empty tensor that it computed no memory.
  return problem->count == 0 ? absl::OkStatus() : ToAbsl(Validate(data));
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

absl::Status CheckDescent(const TensorShape& learning_rate, std::int64_t num_steps,
                          const TensorShape& momentum) {
  if (momentum.dims() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("momentum must be a scalar, got shape ", momentum.DebugString()));
  }
  if (num_steps < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_steps must not be negative, got ", num_steps));
  }
  if (learning_rate.dims() > 1 ||
      (learning_rate.dims() == 1 && learning_rate.dim_size(0) != num_steps)) {
    return absl::InvalidArgumentError(
        absl::StrCat("learning_rate must be a scalar or have num_steps=", num_steps,
                     " entries, got shape ", learning_rate.DebugString()));
  }
  return absl::OkStatus();
}

absl::Status MakeDescent(const Tensor& learning_rate, const Tensor& num_steps,
                         const Tensor& momentum, Descent* descent) {
  if (num_steps.dims() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_steps must be a scalar, got shape ", num_steps.shape().DebugString()));
  }
  descent->num_steps = num_steps.scalar<std::int64_t>()();
  if (absl::Status s = CheckDescent(learning_rate.shape(), descent->num_steps, momentum.shape());
      !s.ok()) {
    return s;
  }
  descent->rates = learning_rate.flat<double>().data();
  descent->num_rates = learning_rate.dims() == 0 ? 1 : descent->num_steps;
  descent->momentum = momentum.scalar<double>()();
  return absl::OkStatus();
}

}  // namespace linreg_ops
