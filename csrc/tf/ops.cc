// The ops and their shape functions. Devices and lowerings register their kernels elsewhere.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "host/shape_rules.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/problem.h"

namespace linreg_ops {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Sizes as the shape rules take them.
std::vector<std::int64_t> SizesOf(InferenceContext* c, ShapeHandle shape) {
  std::vector<std::int64_t> sizes;
  for (int i = 0; c->RankKnown(shape) && i < c->Rank(shape); ++i) {
    const DimensionHandle size = c->Dim(shape, i);
    sizes.push_back(c->ValueKnown(size) ? c->Value(size) : kUnknown);
  }
  return sizes;
}

class Input {
 public:
  Input(InferenceContext* c, int index)
      : sizes_(SizesOf(c, c->input(index))), known_(c->RankKnown(c->input(index))) {}
  ArrayShape shape() const { return known_ ? ArrayShape(sizes_) : ArrayShape(); }

 private:
  const std::vector<std::int64_t> sizes_;
  const bool known_;
};

// The shapes of one problem's results.
struct ResultShapes {
  ShapeHandle w;           // [..., d + intercept, k] or [d + intercept]
  ShapeHandle batch;       // the leading dimensions
  ShapeHandle per_target;  // [k], or [] when there is one target of rank 1
};

// A size that is known, or else the dimension that w has there, if w's rank is known.
DimensionHandle DimOf(InferenceContext* c, std::int64_t size, ShapeHandle w, int index) {
  if (size != kUnknown) return c->MakeDim(size);
  return c->RankKnown(w) ? c->Dim(w, index) : c->UnknownDim();
}

// Checks the problem; `y_input` and `sample_weight_input`, from which on there are sample weights,
// may be -1 and beyond the last.
absl::Status InferProblem(InferenceContext* c, int w_input, int y_input, int sample_weight_input,
                          ResultShapes* results) {
  ProblemShapes given;
  TF_RETURN_IF_ERROR(c->GetAttr("intercept", &given.intercept));
  tensorflow::DataType x_type, w_type;
  TF_RETURN_IF_ERROR(c->GetAttr("Tx", &x_type));
  TF_RETURN_IF_ERROR(c->GetAttr("Tw", &w_type));
  TF_RETURN_IF_ERROR(CheckTypes(x_type, w_type));
  const Input x(c, 0), w(c, w_input), y(c, std::max(y_input, 0));
  given.batches = true;
  given.x = x.shape();
  given.w = w.shape();
  if (y_input >= 0) given.y = y.shape();
  ProblemSizes sizes;
  int i = sample_weight_input;
  do {  // one at most; if a graph brings more, its run says so
    std::optional<Input> weight;
    if (i < c->num_inputs()) given.sample_weight = weight.emplace(c, i).shape();
    TF_RETURN_IF_ERROR(ToAbsl(CheckShapes(given, &sizes)));
  } while (++i < c->num_inputs());

  results->w = results->batch = results->per_target = c->UnknownShape();
  if (sizes.w_rank == kUnknown) return absl::OkStatus();
  const ShapeHandle w_shape = c->input(w_input);
  std::vector<DimensionHandle> dims;
  for (const std::int64_t size : sizes.batch) {
    dims.push_back(DimOf(c, size, w_shape, static_cast<int>(dims.size())));
  }
  results->batch = c->MakeShape(dims);
  const bool rank_1 = sizes.w_rank == 1;
  dims.push_back(DimOf(c, sizes.w_rows, w_shape, rank_1 ? 0 : -2));
  results->per_target = c->Scalar();
  if (!rank_1) {
    dims.push_back(DimOf(c, sizes.shape.k, w_shape, -1));
    results->per_target = c->Vector(dims.back());
  }
  results->w = c->MakeShape(dims);
  return absl::OkStatus();
}

absl::Status L2LossGradShape(InferenceContext* c) {
  bool loss_per_target;
  TF_RETURN_IF_ERROR(c->GetAttr("loss_per_target", &loss_per_target));
  ResultShapes p;
  TF_RETURN_IF_ERROR(InferProblem(c, 1, 2, 3, &p));
  ShapeHandle loss = p.batch;
  if (loss_per_target) TF_RETURN_IF_ERROR(c->Concatenate(p.batch, p.per_target, &loss));
  c->set_output(0, loss);
  c->set_output(1, p.w);
  return absl::OkStatus();
}

absl::Status HessianVectorProductShape(InferenceContext* c) {
  ResultShapes p;
  TF_RETURN_IF_ERROR(InferProblem(c, 1, -1, 2, &p));
  c->set_output(0, p.w);
  return absl::OkStatus();
}

absl::Status SavedGradientShape(InferenceContext* c) {
  ResultShapes p;
  TF_RETURN_IF_ERROR(InferProblem(c, 2, 3, 4, &p));
  ShapeHandle grad;
  if (!c->Merge(c->input(1), p.w, &grad).ok()) {
    return absl::InvalidArgumentError(absl::StrCat("grad must have w's shape, got grad of shape ",
                                                   c->DebugString(c->input(1)), " for w of shape ",
                                                   c->DebugString(p.w)));
  }
  c->set_output(0, grad);
  return absl::OkStatus();
}

absl::Status GradientDescentShape(InferenceContext* c) {
  ResultShapes p;
  TF_RETURN_IF_ERROR(InferProblem(c, 1, 2, 6, &p));
  const Input rate(c, 3), steps(c, 4), momentum(c, 5);
  TF_RETURN_IF_ERROR(ToAbsl(CheckScalar("num_steps", steps.shape())));
  TF_RETURN_IF_ERROR(ToAbsl(CheckScalar("momentum", momentum.shape())));
  std::optional<std::int64_t> num_steps;
  if (const tensorflow::Tensor* constant = c->input_tensor(4)) {
    // A constant may say its rank only once it is folded.
    TF_RETURN_IF_ERROR(CheckNumSteps(constant->shape()));
    num_steps = constant->scalar<tensorflow::int64>()();
  }
  TF_RETURN_IF_ERROR(ToAbsl(CheckRates(rate.shape(), num_steps)));
  DimensionHandle entries = c->UnknownDim();
  if (num_steps) {
    entries = c->MakeDim(*num_steps + 1);
  } else if (rate.shape().rank == 1) {
    TF_RETURN_IF_ERROR(c->Add(c->Dim(c->input(3), 0), 1, &entries));
  }
  ShapeHandle losses;
  TF_RETURN_IF_ERROR(c->Concatenate(p.batch, c->Vector(entries), &losses));
  c->set_output(0, p.w);
  c->set_output(1, losses);
  return absl::OkStatus();
}

REGISTER_OP("Linreg>L2LossGrad")
    .Input("x: Tx")
    .Input("w: Tw")
    .Input("y: Tw")
    .Input("sample_weight: num_sample_weights * Tw")
    .Output("loss: Tw")
    .Output("grad: Tw")
    .Attr("Tx: {half, bfloat16, float, double}")
    .Attr("Tw: {half, bfloat16, float, double}")
    .Attr("num_sample_weights: int >= 0 = 0")
    .Attr("intercept: bool = false")
    .Attr("loss_per_target: bool = false")
    .SetShapeFn(L2LossGradShape)
    .Doc(R"doc(
L2 loss of a linear model and its gradient with respect to w, in one pass over x.

loss = sum(s * (x w - y)^2) / 2 and grad = x^T (s * (x w - y)), as
`tf.nn.l2_loss(tf.matmul(x, w) - y)` and its gradient give, without storing the residual.

x: [n, d], or [..., n, d] for a batch of problems.
w: [d, k] or [d]; one more row, the first, with `intercept`.
y: [n, k] or [n].
sample_weight: none, or one tensor [n] of row weights s.
loss: [], one loss per problem; [k] with `loss_per_target`.
grad: w's shape. Its own derivative is attached by Linreg>SavedGradient.
intercept: x has an implicit leading column of ones.
loss_per_target: one loss per column of y rather than their sum.
)doc");

REGISTER_OP("Linreg>HessianVectorProduct")
    .Input("x: Tx")
    .Input("v: Tw")
    .Input("sample_weight: num_sample_weights * Tw")
    .Output("product: Tw")
    .Attr("Tx: {half, bfloat16, float, double}")
    .Attr("Tw: {half, bfloat16, float, double}")
    .Attr("num_sample_weights: int >= 0 = 0")
    .Attr("intercept: bool = false")
    .SetShapeFn(HessianVectorProductShape)
    .Doc(R"doc(
x^T (s * (x v)), the Hessian of Linreg>L2LossGrad's loss applied to v, in one pass over x.

x: [n, d], or [..., n, d].
v: [d, k] or [d]; one more row, the first, with `intercept`.
sample_weight: none, or one tensor [n] of row weights s.
product: v's shape.
intercept: x has an implicit leading column of ones.
)doc");

REGISTER_OP("Linreg>SavedGradient")
    .Input("x: Tx")
    .Input("grad: Tw")
    .Input("w: Tw")
    .Input("y: Tw")
    .Input("sample_weight: num_sample_weights * Tw")
    .Output("output: Tw")
    .Attr("Tx: {half, bfloat16, float, double}")
    .Attr("Tw: {half, bfloat16, float, double}")
    .Attr("num_sample_weights: int >= 0 = 0")
    .Attr("intercept: bool = false")
    .SetShapeFn(SavedGradientShape)
    .Doc(R"doc(
Hands on Linreg>L2LossGrad's gradient unchanged, as a differentiable function of x, w and y.

Kept apart from that op so that differentiating the loss alone never computes a Hessian-vector
product with a cotangent of zeros.

x: [n, d], or [..., n, d].
grad: the gradient that Linreg>L2LossGrad computed from the other inputs.
w: [d, k] or [d].
y: [n, k] or [n].
sample_weight: none, or one tensor [n].
output: grad.
intercept: x has an implicit leading column of ones.
)doc");

REGISTER_OP("Linreg>GradientDescent")
    .Input("x: Tx")
    .Input("w: Tw")
    .Input("y: Tw")
    .Input("learning_rate: double")
    .Input("num_steps: int64")
    .Input("momentum: double")
    .Input("sample_weight: num_sample_weights * Tw")
    .Output("new_w: Tw")
    .Output("losses: Tw")
    .Attr("Tx: {half, bfloat16, float, double}")
    .Attr("Tw: {half, bfloat16, float, double}")
    .Attr("num_sample_weights: int >= 0 = 0")
    .Attr("intercept: bool = false")
    .Attr("keep_steps: bool = false")
    .SetShapeFn(GradientDescentShape)
    .Doc(R"doc(
Full-batch gradient descent on Linreg>L2LossGrad's loss: every step inside one op.

v <- momentum v - rate_t grad(w_t) and w_{t+1} = w_t + v, from v = 0.

x: [n, d], or [..., n, d] for a batch of problems.
w: the weights to start from, [d, k] or [d]; one more row, the first, with `intercept`.
y: [n, k] or [n].
learning_rate: a scalar, or one rate per step.
num_steps: a scalar, not negative.
momentum: a scalar.
sample_weight: none, or one tensor [n] of row weights.
new_w: the weights after the last step.
losses: [num_steps + 1]; losses[t] is the loss at w_t, before step t.
intercept: x has an implicit leading column of ones.
keep_steps: for eager execution: a step that is cancelled returns what it has finished, new_w after
  as many steps as there are losses. Not on a GPU, nor for a batch.
)doc");

}  // namespace
}  // namespace linreg_ops
