// The ops and their shape functions. Devices and lowerings register their kernels elsewhere.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/problem.h"

namespace linreg_ops {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status Mismatch(InferenceContext* c, const std::string& what, const char* got_name,
                      ShapeHandle got, ShapeHandle x) {
  return absl::InvalidArgumentError(absl::StrCat(what, ", got ", got_name, " of shape ",
                                                 c->DebugString(got), " for x of shape ",
                                                 c->DebugString(x)));
}

// What the shapes of one problem say about each other. Unknown ranks stay unknown.
struct ProblemShapes {
  ShapeHandle x, w;        // [..., n, d] and [..., d + intercept, k] or [d + intercept]
  ShapeHandle batch;       // the leading dimensions
  ShapeHandle per_target;  // [k], or [] when there is one target of rank 1
};

absl::Status MergeBatch(InferenceContext* c, ShapeHandle shape, const char* name, int core_rank,
                        ProblemShapes* p) {
  ShapeHandle batch;
  TF_RETURN_IF_ERROR(c->Subshape(shape, 0, -core_rank, &batch));
  if (!c->Merge(p->batch, batch, &p->batch).ok()) {
    return Mismatch(c, absl::StrCat(name, " must have x's leading dimensions"), name, shape, p->x);
  }
  return absl::OkStatus();
}

// Checks w (and y and sample_weight where `with_y`) against x, and completes w's shape.
absl::Status MergeProblem(InferenceContext* c, int w_input, int y_input, int sample_weight_input,
                          ProblemShapes* p) {
  bool intercept;
  TF_RETURN_IF_ERROR(c->GetAttr("intercept", &intercept));
  tensorflow::DataType x_type, w_type;
  TF_RETURN_IF_ERROR(c->GetAttr("Tx", &x_type));
  TF_RETURN_IF_ERROR(c->GetAttr("Tw", &w_type));
  TF_RETURN_IF_ERROR(CheckTypes(x_type, w_type));
  p->x = c->input(0);
  p->w = c->input(w_input);
  p->batch = c->UnknownShape();
  p->per_target = c->UnknownShape();
  // Failed checks reset their result: the shapes to name in an error stay in x and w until then.
  ShapeHandle checked;
  if (!c->WithRankAtLeast(p->x, 2, &checked).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("x must be [n, d] (or [..., n, d]), got shape ", c->DebugString(p->x)));
  }
  const std::string w_shape =
      intercept ? "[d + 1, k] or [d + 1] (intercept first)" : "[d, k] or [d]";
  p->x = checked;
  if (!c->WithRankAtLeast(p->w, 1, &checked).ok()) {
    return Mismatch(c, "w must be " + w_shape, "w", p->w, p->x);
  }
  p->w = checked;
  ShapeHandle y = y_input < 0 ? c->UnknownShape() : c->input(y_input);
  if (!c->RankKnown(p->w) && c->RankKnown(y)) p->w = c->UnknownShapeOfRank(c->Rank(y));
  if (!c->RankKnown(p->w)) return absl::OkStatus();
  const int rank = c->Rank(p->w);
  const int x_rank = rank == 1 ? 2 : rank;
  if (!c->WithRank(p->x, x_rank, &checked).ok()) {
    return Mismatch(c, "w must have x's rank, or rank 1 with x of rank 2", "w", p->w, p->x);
  }
  p->x = checked;
  const DimensionHandle n = c->Dim(p->x, -2), d = c->Dim(p->x, -1);
  DimensionHandle rows;
  TF_RETURN_IF_ERROR(c->Add(d, intercept ? 1 : 0, &rows));
  if (!c->Merge(rows, c->Dim(p->w, rank == 1 ? 0 : -2), &rows).ok()) {
    return Mismatch(c, absl::StrCat("w must be ", w_shape, " with d the last dimension of x"), "w",
                    p->w, p->x);
  }
  TF_RETURN_IF_ERROR(c->Subshape(p->x, 0, -2, &p->batch));
  if (rank > 1) TF_RETURN_IF_ERROR(MergeBatch(c, p->w, "w", 2, p));
  DimensionHandle k = rank == 1 ? c->UnknownDim() : c->Dim(p->w, -1);
  if (y_input >= 0) {
    const bool rank_ok = c->WithRank(y, rank, &y).ok();
    DimensionHandle merged;
    if (!rank_ok || !c->Merge(n, c->Dim(y, rank == 1 ? 0 : -2), &merged).ok() ||
        (rank > 1 && !c->Merge(k, c->Dim(y, -1), &k).ok())) {
      return absl::InvalidArgumentError(
          absl::StrCat("y must be ", rank == 1 ? "[n]" : "[n, k]",
                       " with n the rows of x and k the columns of w", ", got y of shape ",
                       c->DebugString(c->input(y_input)), " for x of shape ", c->DebugString(p->x),
                       " and w of shape ", c->DebugString(p->w)));
    }
    if (rank > 1) TF_RETURN_IF_ERROR(MergeBatch(c, y, "y", 2, p));
  }
  for (int i = sample_weight_input; i < c->num_inputs(); ++i) {
    ShapeHandle s;
    DimensionHandle merged;
    if (!c->WithRank(c->input(i), x_rank - 1, &s).ok() ||
        !c->Merge(n, c->Dim(s, -1), &merged).ok()) {
      return Mismatch(c, "sample_weight must be [n], one weight per row of x", "sample_weight",
                      c->input(i), p->x);
    }
    TF_RETURN_IF_ERROR(MergeBatch(c, s, "sample_weight", 1, p));
  }
  if (rank == 1) {
    p->per_target = c->Scalar();
    p->w = c->Vector(rows);
  } else {
    p->per_target = c->Vector(k);
    TF_RETURN_IF_ERROR(c->Concatenate(p->batch, c->Matrix(rows, k), &p->w));
  }
  return absl::OkStatus();
}

absl::Status L2LossGradShape(InferenceContext* c) {
  bool loss_per_target;
  TF_RETURN_IF_ERROR(c->GetAttr("loss_per_target", &loss_per_target));
  ProblemShapes p;
  TF_RETURN_IF_ERROR(MergeProblem(c, 1, 2, 3, &p));
  ShapeHandle loss = p.batch;
  if (loss_per_target) TF_RETURN_IF_ERROR(c->Concatenate(p.batch, p.per_target, &loss));
  c->set_output(0, loss);
  c->set_output(1, p.w);
  return absl::OkStatus();
}

absl::Status HessianVectorProductShape(InferenceContext* c) {
  ProblemShapes p;
  TF_RETURN_IF_ERROR(MergeProblem(c, 1, -1, 2, &p));
  c->set_output(0, p.w);
  return absl::OkStatus();
}

absl::Status SavedGradientShape(InferenceContext* c) {
  ProblemShapes p;
  TF_RETURN_IF_ERROR(MergeProblem(c, 2, 3, 4, &p));
  ShapeHandle grad;
  if (!c->Merge(c->input(1), p.w, &grad).ok()) {
    return Mismatch(c, "grad must have w's shape", "grad", c->input(1), p.x);
  }
  c->set_output(0, grad);
  return absl::OkStatus();
}

absl::Status GradientDescentShape(InferenceContext* c) {
  ProblemShapes p;
  TF_RETURN_IF_ERROR(MergeProblem(c, 1, 2, 6, &p));
  ShapeHandle rate, unused;
  if (!c->WithRankAtMost(c->input(3), 1, &rate).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("learning_rate must be a scalar or a vector of num_steps, got shape ",
                     c->DebugString(c->input(3))));
  }
  for (const auto& [name, input] : {std::pair("num_steps", 4), std::pair("momentum", 5)}) {
    if (!c->WithRank(c->input(input), 0, &unused).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " must be a scalar, got shape ", c->DebugString(c->input(input))));
    }
  }
  DimensionHandle entries = c->UnknownDim();
  if (const tensorflow::Tensor* steps = c->input_tensor(4)) {
    // A constant may say its rank only once it is folded.
    TF_RETURN_IF_ERROR(CheckNumSteps(steps->shape()));
    const tensorflow::int64 num_steps = steps->scalar<tensorflow::int64>()();
    TF_RETURN_IF_ERROR(ToAbsl(ValidateSteps(num_steps)));
    DimensionHandle rates;
    if (c->RankKnown(rate) && c->Rank(rate) == 1 &&
        !c->Merge(c->Dim(rate, 0), c->MakeDim(num_steps), &rates).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("learning_rate must be a scalar or have num_steps=", num_steps,
                       " entries, got shape ", c->DebugString(rate)));
    }
    entries = c->MakeDim(num_steps + 1);
  } else if (c->RankKnown(rate) && c->Rank(rate) == 1) {
    TF_RETURN_IF_ERROR(c->Add(c->Dim(rate, 0), 1, &entries));
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
)doc");

}  // namespace
}  // namespace linreg_ops
