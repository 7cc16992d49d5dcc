#include "tf/problem.h"

#include <initializer_list>
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

// Whether a shape is x's leading dimensions and `core` behind them. Compared and not put together:
// dimensions that nobody has multiplied yet may overflow.
bool Is(const TensorShape& shape, const TensorShape& batch,
        std::initializer_list<std::int64_t> core) {
  if (shape.dims() != batch.dims() + static_cast<int>(core.size())) return false;
  for (int i = 0; i < batch.dims(); ++i) {
    if (shape.dim_size(i) != batch.dim_size(i)) return false;
  }
  int i = batch.dims();
  for (const std::int64_t size : core) {
    if (shape.dim_size(i++) != size) return false;
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
    case Status::Code::kOutOfMemory:
      return absl::ResourceExhaustedError(status.message());
    case Status::Code::kInternal:
      break;
  }
  return absl::InternalError(status.message());
}

absl::Status CheckTypes(tensorflow::DataType x, tensorflow::DataType w) {
  DType x_type, w_type;
  if (absl::Status s = KernelType(x, &x_type); !s.ok()) return s;
  if (absl::Status s = KernelType(w, &w_type); !s.ok()) return s;
  return ToAbsl(ValidateTypes(x_type, w_type));
}

absl::Status CheckTypes(tensorflow::OpKernelConstruction* ctx) {
  tensorflow::DataType x, w;
  if (absl::Status s = ctx->GetAttr("Tx", &x); !s.ok()) return s;
  if (absl::Status s = ctx->GetAttr("Tw", &w); !s.ok()) return s;
  return CheckTypes(x, w);
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
  if (absl::Status s = ToAbsl(ValidateSizes(shape)); !s.ok()) return s;
  for (int i = 0; i < x.dims() - 2; ++i) {
    absl::Status s = problem->batch_shape.AddDimWithStatus(x.dim_size(i));
    if (!s.ok()) return s;
  }
  problem->count = problem->batch_shape.num_elements();

  if (w.dim_size(rank == 1 ? 0 : rank - 2) != shape.weight_rows()) {
    return mismatch(intercept
                        ? "w must be [d + 1, k] or [d + 1] (intercept first), with d the last "
                          "dimension of x"
                        : "w must be [d, k] or [d], with d the last dimension of x",
                    "w", w);
  }
  if (rank > 1 && !Is(w, problem->batch_shape, {shape.weight_rows(), shape.k})) {
    return mismatch("w must have x's leading dimensions", "w", w);
  }
  if (y != nullptr) {
    const bool fits = rank == 1 ? Is(*y, problem->batch_shape, {shape.n})
                                : Is(*y, problem->batch_shape, {shape.n, shape.k});
    if (!fits) {
      return absl::InvalidArgumentError(absl::StrCat(
          "y must be ", rank == 1 ? "[n]" : "[n, k]",
          " with n the rows of x and k the columns of w, got y of shape ", y->DebugString(),
          " for x of shape ", x.DebugString(), " and w of shape ", w.DebugString()));
    }
  }
  if (sample_weight != nullptr) {
    if (!Is(*sample_weight, problem->batch_shape, {shape.n})) {
      return mismatch("sample_weight must be [n], one weight per row of x", "sample_weight",
                      *sample_weight);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSavedGradient(const TensorShape& grad, const Problem& problem) {
  if (grad == problem.weight_shape) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("grad must have w's shape, got grad of shape ",
                                                 grad.DebugString(), " for w of shape ",
                                                 problem.weight_shape.DebugString()));
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

absl::Status CheckNumSteps(const TensorShape& num_steps) {
  if (num_steps.dims() == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("num_steps must be a scalar, got shape ", num_steps.DebugString()));
}

absl::Status CheckDescent(const TensorShape& learning_rate, std::int64_t num_steps,
                          const TensorShape& momentum) {
  if (momentum.dims() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("momentum must be a scalar, got shape ", momentum.DebugString()));
  }
  if (absl::Status s = ToAbsl(ValidateSteps(num_steps)); !s.ok()) return s;
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
  if (absl::Status s = CheckNumSteps(num_steps.shape()); !s.ok()) return s;
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
