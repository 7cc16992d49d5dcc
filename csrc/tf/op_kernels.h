// The ops' kernels, whatever the device: from a context's inputs to its outputs. A Host brings the
// device's memory, threads or stream, and its half of the kernel API:
//
//     explicit Host(OpKernelConstruction*);
//     absl::Status LossGrad(OpKernelContext*, const Problem&, output);    // LossGrad output(i)
//     absl::Status Descend(OpKernelContext*, const Problem&, const Descent& any, descent);
//                                                                         // Descent descent(i)
//
// with a call of `output` or `descent` for each problem of the batch, which is not empty.
#pragma once

#include <cstdint>

#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/problem.h"

namespace linreg_ops {

// A step that is cancelled ends the kernels too.
template <typename Call>
void SetCancellation(tensorflow::OpKernelContext* ctx, Call* call) {
  call->cancelled_context = ctx->cancellation_manager();
  if (call->cancelled_context == nullptr) return;
  call->cancelled = [](void* manager) {
    return static_cast<tensorflow::CancellationManager*>(manager)->IsCancelled();
  };
}

template <typename Host>
class L2LossGradOp : public tensorflow::OpKernel {
 public:
  explicit L2LossGradOp(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx), host_(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("loss_per_target", &loss_per_target_));
  }

  void Compute(tensorflow::OpKernelContext* ctx) override {
    const tensorflow::Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), &ctx->input(2), sample_weight,
                                    intercept_, &problem));
    const Shape& shape = problem.first.shape;
    const bool rank_1 = problem.weight_shape.dims() == 1;
    tensorflow::TensorShape loss_shape = problem.batch_shape;
    if (loss_per_target_ && !rank_1) OP_REQUIRES_OK(ctx, loss_shape.AddDimWithStatus(shape.k));
    tensorflow::Tensor* loss;
    tensorflow::Tensor* grad;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, loss_shape, &loss));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, problem.weight_shape, &grad));
    if (loss->NumElements() == 0 && grad->NumElements() == 0) return;
    LossGrad any;
    SetCancellation(ctx, &any);
    const auto output = [&](std::int64_t i) {
      LossGrad out = any;
      out.loss = problem.Offset(loss->data(), i, loss_per_target_ ? shape.k : 1);
      out.loss_per_target = loss_per_target_;
      out.grad = problem.Offset(grad->data(), i, shape.weight_rows() * shape.k);
      return out;
    };
    OP_REQUIRES_OK(ctx, host_.LossGrad(ctx, problem, output));
  }

 private:
  Host host_;
  bool intercept_;
  bool loss_per_target_;
};

template <typename Host>
class HessianVectorProductOp : public tensorflow::OpKernel {
 public:
  explicit HessianVectorProductOp(tensorflow::OpKernelConstruction* ctx)
      : OpKernel(ctx), host_(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
  }

  void Compute(tensorflow::OpKernelContext* ctx) override {
    const tensorflow::Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), nullptr, sample_weight,
                                    intercept_, &problem));
    tensorflow::Tensor* product;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, problem.weight_shape, &product));
    if (product->NumElements() == 0) return;
    const std::int64_t weights = problem.first.shape.weight_rows() * problem.first.shape.k;
    LossGrad any;
    SetCancellation(ctx, &any);
    const auto output = [&](std::int64_t i) {
      LossGrad out = any;
      out.grad = problem.Offset(product->data(), i, weights);
      return out;
    };
    OP_REQUIRES_OK(ctx, host_.LossGrad(ctx, problem, output));
  }

 private:
  Host host_;
  bool intercept_;
};

class SavedGradientOp : public tensorflow::OpKernel {
 public:
  explicit SavedGradientOp(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, CheckTypes(ctx));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
  }

  void Compute(tensorflow::OpKernelContext* ctx) override {
    const tensorflow::Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(2), &ctx->input(3), sample_weight,
                                    intercept_, &problem));
    OP_REQUIRES_OK(ctx, CheckSavedGradient(ctx->input(1).shape(), problem));
    ctx->set_output(0, ctx->input(1));
  }
  bool IsExpensive() override { return false; }

 private:
  bool intercept_;
};

// What is left of a pair of types that has no kernel: the error that says so.
class NoKernelOp : public tensorflow::OpKernel {
 public:
  explicit NoKernelOp(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx) {
    ctx->SetStatus(CheckTypes(ctx));
  }
  void Compute(tensorflow::OpKernelContext* ctx) override {
    ctx->SetStatus(absl::InternalError("made for types that have a kernel"));
  }
};

template <typename Host>
class GradientDescentOp : public tensorflow::OpKernel {
 public:
  explicit GradientDescentOp(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx), host_(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
  }

  void Compute(tensorflow::OpKernelContext* ctx) override {
    const tensorflow::Tensor* sample_weight;
    Problem problem;
    Descent descent;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), &ctx->input(2), sample_weight,
                                    intercept_, &problem));
    OP_REQUIRES_OK(ctx, MakeDescent(ctx->input(3), ctx->input(4), ctx->input(5), &descent));
    tensorflow::TensorShape losses_shape = problem.batch_shape;
    OP_REQUIRES_OK(ctx, losses_shape.AddDimWithStatus(descent.num_steps + 1));
    tensorflow::Tensor* w;
    tensorflow::Tensor* losses;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, problem.weight_shape, &w));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, losses_shape, &losses));
    if (problem.count == 0) return;
    SetCancellation(ctx, &descent);
    const std::int64_t weights = problem.first.shape.weight_rows() * problem.first.shape.k;
    const auto one = [&](std::int64_t i) {
      Descent result = descent;
      result.w = problem.Offset(w->data(), i, weights);
      result.losses = problem.Offset(losses->data(), i, descent.num_steps + 1);
      return result;
    };
    OP_REQUIRES_OK(ctx, host_.Descend(ctx, problem, descent, one));
  }

 private:
  Host host_;
  bool intercept_;
};

// Every op of a device for one pair of types; numbers that a host reads stay in its memory, which
// is where they are on a CPU anyway.
#define LINREG_OPS_REGISTER(Device_, Host, Tx, Tw)                                                 \
  REGISTER_KERNEL_BUILDER(                                                                         \
      Name("Linreg>L2LossGrad").Device(Device_).TypeConstraint<Tx>("Tx").TypeConstraint<Tw>("Tw"), \
      L2LossGradOp<Host>);                                                                         \
  REGISTER_KERNEL_BUILDER(Name("Linreg>HessianVectorProduct")                                      \
                              .Device(Device_)                                                     \
                              .TypeConstraint<Tx>("Tx")                                            \
                              .TypeConstraint<Tw>("Tw"),                                           \
                          HessianVectorProductOp<Host>);                                           \
  REGISTER_KERNEL_BUILDER(Name("Linreg>GradientDescent")                                           \
                              .Device(Device_)                                                     \
                              .HostMemory("learning_rate")                                         \
                              .HostMemory("num_steps")                                             \
                              .HostMemory("momentum")                                              \
                              .TypeConstraint<Tx>("Tx")                                            \
                              .TypeConstraint<Tw>("Tw"),                                           \
                          GradientDescentOp<Host>)

#define LINREG_OPS_REGISTER_NO_KERNEL(Device_, Name_) \
  REGISTER_KERNEL_BUILDER(Name(Name_).Device(Device_).Priority(-1), NoKernelOp)

#define LINREG_OPS_REGISTER_ALL(Device_, Host)                           \
  LINREG_OPS_REGISTER(Device_, Host, float, float);                      \
  LINREG_OPS_REGISTER(Device_, Host, double, double);                    \
  LINREG_OPS_REGISTER(Device_, Host, Eigen::half, Eigen::half);          \
  LINREG_OPS_REGISTER(Device_, Host, Eigen::half, float);                \
  LINREG_OPS_REGISTER(Device_, Host, Eigen::bfloat16, Eigen::bfloat16);  \
  LINREG_OPS_REGISTER(Device_, Host, Eigen::bfloat16, float);            \
  LINREG_OPS_REGISTER_NO_KERNEL(Device_, "Linreg>L2LossGrad");           \
  LINREG_OPS_REGISTER_NO_KERNEL(Device_, "Linreg>HessianVectorProduct"); \
  LINREG_OPS_REGISTER_NO_KERNEL(Device_, "Linreg>GradientDescent");      \
  REGISTER_KERNEL_BUILDER(Name("Linreg>SavedGradient").Device(Device_), SavedGradientOp)

}  // namespace linreg_ops
