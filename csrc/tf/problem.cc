#include "tf/problem.h"

#include "absl/strings/str_cat.h"
#include "host/shape_rules.h"

namespace linreg_ops {
namespace {

using tensorflow::Tensor;
using tensorflow::TensorShape;

struct TypeRow {
  DType type;
  tensorflow::DataType data_type;
};
constexpr TypeRow kTypes[] = {{DType::kFloat32, tensorflow::DT_FLOAT},
                              {DType::kFloat64, tensorflow::DT_DOUBLE},
                              {DType::kFloat16, tensorflow::DT_HALF},
                              {DType::kBFloat16, tensorflow::DT_BFLOAT16}};

absl::Status KernelType(tensorflow::DataType type, DType* out) {
  for (const TypeRow& row : kTypes) {
    if (row.data_type != type) continue;
    *out = row.type;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no kernel for ", tensorflow::DataTypeString(type)));
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

tensorflow::DataType DataTypeOf(DType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.data_type;
  }
  return tensorflow::DT_INVALID;
}

absl::Status CheckShapes(const TensorShape& x, const TensorShape& w, const TensorShape* y,
                         const TensorShape* sample_weight, bool intercept, Problem* problem) {
  const TensorShape none;
  const auto x_sizes = x.dim_sizes(), w_sizes = w.dim_sizes();
  const auto y_sizes = (y != nullptr ? *y : none).dim_sizes();
  const auto s_sizes = (sample_weight != nullptr ? *sample_weight : none).dim_sizes();
  ProblemShapes given;
  given.x = ArrayShape(x_sizes);
  given.w = ArrayShape(w_sizes);
  if (y != nullptr) given.y = ArrayShape(y_sizes);
  if (sample_weight != nullptr) given.sample_weight = ArrayShape(s_sizes);
  given.intercept = intercept;
  given.batches = true;
  ProblemSizes sizes;
  if (absl::Status s = ToAbsl(CheckShapes(given, &sizes)); !s.ok()) return s;
  problem->first.shape = sizes.shape;
  problem->weight_shape = w;
  for (const std::int64_t size : sizes.batch) {
    if (absl::Status s = problem->batch_shape.AddDimWithStatus(size); !s.ok()) return s;
  }
  problem->count = problem->batch_shape.num_elements();
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
  return absl::OkStatus();
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
  return ToAbsl(CheckScalar("num_steps", ArrayShape(num_steps.dim_sizes())));
}

absl::Status CheckDescent(const TensorShape& learning_rate, std::int64_t num_steps,
                          const TensorShape& momentum) {
  const auto rate_sizes = learning_rate.dim_sizes(), momentum_sizes = momentum.dim_sizes();
  const Status status = CheckScalar("momentum", ArrayShape(momentum_sizes));
  return ToAbsl(status.ok() ? CheckRates(ArrayShape(rate_sizes), num_steps) : status);
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
