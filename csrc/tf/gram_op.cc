// Linreg>Gram: the op and its kernel on the CPU.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/gram.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/threadpool.h"
#include "tf/intra_op_threads.h"
#include "tf/op_kernels.h"
#include "tf/problem.h"

namespace linreg_ops {
namespace {

using tensorflow::DT_DOUBLE;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status GramShapes(InferenceContext* c) {
  ShapeHandle x, y, s;
  const auto refuse = [c](const char* what, int input) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ", got shape ", c->DebugString(c->input(input)), " for x of shape ",
                     c->DebugString(c->input(0))));
  };
  if (!c->WithRank(c->input(0), 2, &x).ok()) return refuse("x must be [n, d]", 0);
  DimensionHandle n;
  if (!c->WithRank(c->input(1), 2, &y).ok() || !c->Merge(c->Dim(x, 0), c->Dim(y, 0), &n).ok()) {
    return refuse("y must be [n, k] with n the rows of x", 1);
  }
  for (int i = 2; i < c->num_inputs(); ++i) {
    if (!c->WithRank(c->input(i), 1, &s).ok() || !c->Merge(n, c->Dim(s, 0), &n).ok()) {
      return refuse("sample_weight must be [n], one weight per row of x", i);
    }
  }
  const DimensionHandle d = c->Dim(x, 1), k = c->Dim(y, 1);
  c->set_output(0, c->Matrix(d, d));
  c->set_output(1, c->Matrix(d, k));
  c->set_output(2, c->Vector(k));
  c->set_output(3, c->Vector(d));
  c->set_output(4, c->Vector(k));
  c->set_output(5, c->Scalar());
  return absl::OkStatus();
}

REGISTER_OP("Linreg>Gram")
    .Input("x: Tx")
    .Input("y: Ty")
    .Input("sample_weight: num_sample_weights * Tw")
    .Output("xx: double")
    .Output("xy: double")
    .Output("yy: double")
    .Output("x_sum: double")
    .Output("y_sum: double")
    .Output("weight: double")
    .Attr("Tx: {half, bfloat16, float, double}")
    .Attr("Ty: {half, bfloat16, float, double}")
    .Attr("Tw: {half, bfloat16, float, double} = DT_DOUBLE")
    .Attr("num_sample_weights: int >= 0 = 0")
    .SetShapeFn(GramShapes)
    .Doc(R"doc(
x^T (s x), x^T (s y) and their company in float64, from one pass over x and y.

x: [n, d].
y: [n, k].
sample_weight: none, or one tensor [n] of row weights s.
xx: [d, d], sum s x x^T.
xy: [d, k], sum s x y^T.
yy: [k], sum s y^2.
x_sum: [d], sum s x.
y_sum: [k], sum s y.
weight: [], sum s.
)doc");

DType TypeOf(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case tensorflow::DT_HALF:
      return DType::kFloat16;
    case tensorflow::DT_BFLOAT16:
      return DType::kBFloat16;
    case tensorflow::DT_FLOAT:
      return DType::kFloat32;
    default:
      return DType::kFloat64;
  }
}

absl::Status MakeBatch(OpKernelContext* ctx, GramShape* shape, GramBatch* batch) {
  const Tensor& x = ctx->input(0);
  const Tensor& y = ctx->input(1);
  const Tensor* s;
  if (absl::Status status = GetSampleWeight(ctx, &s); !status.ok()) return status;
  const auto refuse = [&](const char* what, const Tensor& got) {
    return absl::InvalidArgumentError(absl::StrCat(what, ", got shape ", got.shape().DebugString(),
                                                   " for x of shape ", x.shape().DebugString()));
  };
  if (x.dims() != 2) return refuse("x must be [n, d]", x);
  if (y.dims() != 2 || y.dim_size(0) != x.dim_size(0)) {
    return refuse("y must be [n, k] with n the rows of x", y);
  }
  if (s != nullptr && (s->dims() != 1 || s->dim_size(0) != x.dim_size(0))) {
    return refuse("sample_weight must be [n], one weight per row of x", *s);
  }
  *shape = {x.dim_size(1), y.dim_size(1), 1};
  batch->n = x.dim_size(0);
  batch->x_type = TypeOf(x);
  batch->y_type = TypeOf(y);
  batch->x = x.data();
  batch->y = y.data();
  if (s != nullptr) {
    batch->weight_type = TypeOf(*s);
    batch->sample_weight = s->data();
  }
  return ToAbsl(ValidateGram(*shape));
}

class GramOp : public tensorflow::OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    GramShape shape;
    GramBatch batch;
    OP_REQUIRES_OK(ctx, MakeBatch(ctx, &shape, &batch));
    Tensor* outputs[6];
    const std::int64_t d = shape.d, k = shape.k;
    const TensorShape shapes[] = {TensorShape({d, d}), TensorShape({d, k}), TensorShape({k}),
                                  TensorShape({d}),    TensorShape({k}),    TensorShape({})};
    for (int i = 0; i < 6; ++i) {
      OP_REQUIRES_OK(ctx, ctx->allocate_output(i, shapes[i], &outputs[i]));
    }
    const auto output = [&](int i) { return static_cast<double*>(outputs[i]->data()); };
    const GramResult result = {output(0), output(1), output(2), output(3), output(4), output(5)};

    Tensor sums, pending;
    const std::int64_t size = 2 * GramSumsSize(d, k);
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(DT_DOUBLE, TensorShape({size}), &sums));
    const TensorShape rows_shape({std::min(batch.n, kGramBlockRows), shape.width()});
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(DT_DOUBLE, rows_shape, &pending));
    std::memset(sums.data(), 0, static_cast<std::size_t>(size) * sizeof(double));
    const std::vector<double> scale(d + k, 1.0), offset(d + k, -0.0);
    std::int64_t rows = 0;
    const GramState state = {shape,
                             static_cast<double*>(sums.data()),
                             static_cast<double*>(pending.data()),
                             &rows,
                             scale.data(),
                             offset.data()};

    tensorflow::thread::ThreadPool* pool = ctx->device()->tensorflow_cpu_worker_threads()->workers;
    const cpu::Threads threads = IntraOpThreads(pool, pool->NumThreads());
    const std::int64_t bytes =
        std::max(cpu::GramUpdateWorkspaceBytes(state, batch.n, threads.count),
                 cpu::GramSumWorkspaceBytes(state, threads.count));
    Tensor workspace;
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), &workspace));
    Cancellable cancellable;
    SetCancellation(ctx, &cancellable);
    OP_REQUIRES_OK(
        ctx, ToAbsl(cpu::GramUpdate(state, batch, cancellable, threads, workspace.data(), bytes)));
    const std::int64_t fold = 0;
    OP_REQUIRES_OK(ctx,
                   ToAbsl(cpu::GramSum(state, &fold, 1, result, threads, workspace.data(), bytes)));
  }
};

REGISTER_KERNEL_BUILDER(Name("Linreg>Gram").Device(tensorflow::DEVICE_CPU), GramOp);

}  // namespace
}  // namespace linreg_ops
