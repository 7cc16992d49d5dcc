// The ops for XLA: on the host a custom call into the CPU kernels; elsewhere, and for arrays whose
// sizes XLA knows only as bounds, plain HLO.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tensorflow/compiler/tf2xla/shape_util.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tf/problem.h"
#include "tf/xla_custom_calls.h"
#include "tf/xla_hlo.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/shape_util.h"

namespace linreg_ops {
namespace {

using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;
using tensorflow::XlaOpKernelContext;
using xla::XlaOp;

// LINREG_OPS_XLA=hlo: no custom calls on the host either, for a program to be shipped to a process
// without this library, and to test what other devices run.
bool PlainHloWanted() {
  const char* value = std::getenv("LINREG_OPS_XLA");
  return value != nullptr && std::string(value) == "hlo";
}

class LinregXlaOp : public tensorflow::XlaOpKernel {
 public:
  explicit LinregXlaOp(OpKernelConstruction* ctx)
      : XlaOpKernel(ctx),
        on_host_(ctx->device_type() == tensorflow::DeviceType(tensorflow::DEVICE_CPU_XLA_JIT)) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
    OP_REQUIRES_OK(ctx, CheckTypes(ctx));
  }

 protected:
  // Checks the shapes and collects the inputs; `y` < 0: there is none.
  absl::Status Read(XlaOpKernelContext* ctx, int w, int y, int sample_weight, Problem* problem,
                    HloProblem* hlo) const {
    if (ctx->num_inputs() > sample_weight + 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sample_weight must be one tensor or none, got ", ctx->num_inputs() - sample_weight));
    }
    const TensorShape x_shape = ctx->InputShape(0), w_shape = ctx->InputShape(w);
    TensorShape y_shape, s_shape;
    hlo->x = ctx->Input(0);
    hlo->w = ctx->Input(w);
    hlo->intercept = intercept_;
    if (y >= 0) {
      y_shape = ctx->InputShape(y);
      hlo->y = ctx->Input(y);
    }
    const bool weighted = ctx->num_inputs() > sample_weight;
    if (weighted) {
      s_shape = ctx->InputShape(sample_weight);
      hlo->sample_weight = ctx->Input(sample_weight);
    }
    if (absl::Status s = CheckShapes(x_shape, w_shape, y >= 0 ? &y_shape : nullptr,
                                     weighted ? &s_shape : nullptr, intercept_, problem);
        !s.ok()) {
      return s;
    }
    // Plain HLO has the residuals of all problems in one array, of no elements perhaps.
    const Shape& shape = problem->first.shape;
    TensorShape residuals;
    absl::Status s = residuals.AddDimWithStatus(std::max<std::int64_t>(problem->count, 1));
    if (s.ok()) s = residuals.AddDimWithStatus(std::max<std::int64_t>(shape.n, 1));
    if (s.ok()) s = residuals.AddDimWithStatus(8 * std::max<std::int64_t>(shape.k, 1));
    return s;
  }

  // Whether a custom call can run this: the kernels need the true sizes, and XLA passes buffers of
  // the largest ones for arrays such as a boolean mask's.
  bool UseCustomCall(XlaOpKernelContext* ctx) const {
    if (!on_host_ || !HostCustomCallsRegistered() || PlainHloWanted()) return false;
    for (int i = 0; i < ctx->num_inputs(); ++i) {
      const auto shape = ctx->InputXlaShape(i);
      if (!shape.ok() || !shape->is_static()) return false;
    }
    return true;
  }

  // All arrays row-major, whatever layout XLA would like: that is what the kernels read.
  XlaOp CustomCall(XlaOpKernelContext* ctx, const char* target, std::vector<int> inputs,
                   const xla::Shape& result, const std::string& attributes) const {
    std::vector<XlaOp> operands;
    std::vector<xla::Shape> shapes;
    for (const int i : inputs) {
      operands.push_back(ctx->Input(i));
      shapes.push_back(RowMajor(ctx->input_xla_type(i), ctx->InputShape(i)));
    }
    return xla::CustomCallWithLayout(
        ctx->builder(), target, operands, result, shapes,
        absl::StrCat("{intercept = ", intercept_ ? "true" : "false", attributes, "}"),
        /*has_side_effect=*/false, /*output_operand_aliasing=*/{}, /*literal=*/nullptr,
        xla::CustomCallSchedule::SCHEDULE_NONE, xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
  }

  static xla::Shape RowMajor(xla::PrimitiveType type, const TensorShape& shape) {
    return tensorflow::TensorShapeToXLAShape(type, shape);
  }

  // `first` and, behind them, the inputs from `rest` on.
  static std::vector<int> Inputs(XlaOpKernelContext* ctx, std::vector<int> first, int rest) {
    for (int i = rest; i < ctx->num_inputs(); ++i) first.push_back(i);
    return first;
  }

 private:
  const bool on_host_;
  bool intercept_;
};

class L2LossGradXlaOp : public LinregXlaOp {
 public:
  explicit L2LossGradXlaOp(OpKernelConstruction* ctx) : LinregXlaOp(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("loss_per_target", &loss_per_target_));
  }

  void Compile(XlaOpKernelContext* ctx) override {
    Problem problem;
    HloProblem hlo;
    OP_REQUIRES_OK(ctx, Read(ctx, 1, 2, 3, &problem, &hlo));
    if (!UseCustomCall(ctx)) {
      const HloLossGrad out = LossAndGrad(hlo, loss_per_target_);
      ctx->SetOutput(0, out.loss);
      ctx->SetOutput(1, out.grad);
      return;
    }
    TensorShape loss_shape = problem.batch_shape;
    if (loss_per_target_ && problem.weight_shape.dims() > 1) {
      OP_REQUIRES_OK(ctx, loss_shape.AddDimWithStatus(problem.first.shape.k));
    }
    const xla::PrimitiveType type = ctx->input_xla_type(1);
    const XlaOp out =
        CustomCall(ctx, kL2LossGradCall, Inputs(ctx, {0, 1, 2}, 3),
                   xla::ShapeUtil::MakeTupleShape(
                       {RowMajor(type, loss_shape), RowMajor(type, problem.weight_shape)}),
                   absl::StrCat(", loss_per_target = ", loss_per_target_ ? "true" : "false"));
    ctx->SetOutput(0, xla::GetTupleElement(out, 0));
    ctx->SetOutput(1, xla::GetTupleElement(out, 1));
  }

 private:
  bool loss_per_target_;
};

class HessianVectorProductXlaOp : public LinregXlaOp {
 public:
  using LinregXlaOp::LinregXlaOp;
  void Compile(XlaOpKernelContext* ctx) override {
    Problem problem;
    HloProblem hlo;
    OP_REQUIRES_OK(ctx, Read(ctx, 1, -1, 2, &problem, &hlo));
    if (!UseCustomCall(ctx)) {
      ctx->SetOutput(0, LossAndGrad(hlo, false).grad);
      return;
    }
    ctx->SetOutput(0, CustomCall(ctx, kHessianVectorProductCall, Inputs(ctx, {0, 1}, 2),
                                 RowMajor(ctx->input_xla_type(1), problem.weight_shape), ""));
  }
};

class SavedGradientXlaOp : public LinregXlaOp {
 public:
  using LinregXlaOp::LinregXlaOp;
  void Compile(XlaOpKernelContext* ctx) override {
    Problem problem;
    HloProblem hlo;
    OP_REQUIRES_OK(ctx, Read(ctx, 2, 3, 4, &problem, &hlo));
    OP_REQUIRES_OK(ctx, CheckSavedGradient(ctx->InputShape(1), problem));
    ctx->SetOutput(0, ctx->Input(1));
  }
};

class GradientDescentXlaOp : public LinregXlaOp {
 public:
  using LinregXlaOp::LinregXlaOp;
  void Compile(XlaOpKernelContext* ctx) override {
    Problem problem;
    HloProblem hlo;
    OP_REQUIRES_OK(ctx, Read(ctx, 1, 2, 6, &problem, &hlo));
    // The number of losses is a shape, and XLA's shapes are constants.
    OP_REQUIRES_OK(ctx, CheckNumSteps(ctx->InputShape(4)));
    std::int64_t num_steps;
    OP_REQUIRES_OK(ctx, ctx->ConstantInputAsIntScalar(4, &num_steps));
    OP_REQUIRES_OK(ctx, CheckDescent(ctx->InputShape(3), num_steps, ctx->InputShape(5)));
    TensorShape losses_shape = problem.batch_shape;
    OP_REQUIRES_OK(ctx, losses_shape.AddDimWithStatus(num_steps + 1));
    if (!UseCustomCall(ctx)) {
      absl::StatusOr<HloDescent> out =
          Descend(hlo, {ctx->Input(3), ctx->InputShape(3).dims() == 1}, ctx->Input(5), num_steps);
      OP_REQUIRES_OK(ctx, out.status());
      ctx->SetOutput(0, out->w);
      ctx->SetOutput(1, out->losses);
      return;
    }
    const xla::PrimitiveType type = ctx->input_xla_type(1);
    const XlaOp out =
        CustomCall(ctx, kGradientDescentCall, Inputs(ctx, {0, 1, 2, 3, 5}, 6),
                   xla::ShapeUtil::MakeTupleShape(
                       {RowMajor(type, problem.weight_shape), RowMajor(type, losses_shape)}),
                   "");
    ctx->SetOutput(0, xla::GetTupleElement(out, 0));
    ctx->SetOutput(1, xla::GetTupleElement(out, 1));
  }
};

REGISTER_XLA_OP(Name("Linreg>L2LossGrad"), L2LossGradXlaOp);
REGISTER_XLA_OP(Name("Linreg>HessianVectorProduct"), HessianVectorProductXlaOp);
REGISTER_XLA_OP(Name("Linreg>SavedGradient"), SavedGradientXlaOp);
REGISTER_XLA_OP(Name("Linreg>GradientDescent").CompileTimeConstantInput("num_steps"),
                GradientDescentXlaOp);

}  // namespace
}  // namespace linreg_ops
