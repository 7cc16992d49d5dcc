// The ops' kernels, whatever the device: from a context's inputs to its outputs. A Host brings the
// device's memory, threads or stream, and its half of the kernel API:
//
//     explicit Host(OpKernelConstruction*);
//     absl::Status Run(OpKernelContext*, const Problem&, output);
//
// with a call of `output` for each problem of the batch, which is not empty: output(i) is a
// LossGrad, or a Descent.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/dtypes.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/kernel_def_builder.h"
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
    if (loss->NumElements() == 0 && grad->NumElements() == 0) {
      OP_REQUIRES_OK(ctx, ToAbsl(ValidateSizes(shape)));  // there is no kernel to do so
      return;
    }
    LossGrad any;
    SetCancellation(ctx, &any);
    const auto output = [&](std::int64_t i) {
      LossGrad out = any;
      out.loss = problem.Offset(loss->data(), i, loss_per_target_ ? shape.k : 1);
      out.loss_per_target = loss_per_target_;
      out.grad = problem.Offset(grad->data(), i, shape.weight_rows() * shape.k);
      return out;
    };
    OP_REQUIRES_OK(ctx, host_.Run(ctx, problem, output));
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
    const Shape& shape = problem.first.shape;
    if (product->NumElements() == 0) {
      OP_REQUIRES_OK(ctx, ToAbsl(ValidateSizes(shape)));
      return;
    }
    const std::int64_t weights = shape.weight_rows() * shape.k;
    LossGrad any;
    SetCancellation(ctx, &any);
    const auto output = [&](std::int64_t i) {
      LossGrad out = any;
      out.grad = problem.Offset(product->data(), i, weights);
      return out;
    };
    OP_REQUIRES_OK(ctx, host_.Run(ctx, problem, output));
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
    OP_REQUIRES_OK(ctx, ctx->GetAttr("keep_steps", &keep_steps_));
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
    if (problem.count == 0) {
      OP_REQUIRES_OK(ctx, ToAbsl(ValidateSizes(problem.first.shape)));
      return;
    }
    SetCancellation(ctx, &descent);
    const std::int64_t weights = problem.first.shape.weight_rows() * problem.first.shape.k;
    const auto one = [&](std::int64_t i) {
      Descent result = descent;
      result.w = problem.Offset(w->data(), i, weights);
      result.losses = problem.Offset(losses->data(), i, descent.num_steps + 1);
      return result;
    };
    std::int64_t steps_kept = -1;
    if (keep_steps_ && losses->dims() == 1) descent.steps_kept = &steps_kept;
    const absl::Status status = host_.Run(ctx, problem, one);
    if (absl::IsCancelled(status) && steps_kept >= 0) {
      *losses = losses->Slice(0, steps_kept);
    } else {
      OP_REQUIRES_OK(ctx, status);
    }
  }

 private:
  Host host_;
  bool intercept_;
  bool keep_steps_;
};

// Registers an op's kernel for a device: for `pair` alone, or for whatever has no kernel of its
// own.
template <typename Kernel>
void RegisterKernel(const char* op, const char* device, const DTypePair* pair,
                    std::initializer_list<const char*> host_memory = {}) {
  tensorflow::KernelDefBuilder builder(op);
  builder.Device(device);
  for (const char* const input : host_memory) builder.HostMemory(input);
  if (pair != nullptr) {
    builder.TypeConstraint("Tx", DataTypeOf(pair->x)).TypeConstraint("Tw", DataTypeOf(pair->w));
  } else {
    builder.Priority(-1);
  }
  using tensorflow::OpKernel;
  const tensorflow::kernel_factory::OpKernelRegistrar registrar(
      builder.Build(), op,
      [](tensorflow::OpKernelConstruction* ctx) -> OpKernel* { return new Kernel(ctx); });
  (void)registrar;
}

// Every op of a device, for every pair of types. Numbers that a host reads stay in its memory,
// which is where they are on a CPU anyway. Returns true.
template <typename Host>
bool RegisterOps(const char* device) {
  for (const DTypePair& pair : kDTypePairs) {
    RegisterKernel<L2LossGradOp<Host>>("Linreg>L2LossGrad", device, &pair);
    RegisterKernel<HessianVectorProductOp<Host>>("Linreg>HessianVectorProduct", device, &pair);
    RegisterKernel<GradientDescentOp<Host>>("Linreg>GradientDescent", device, &pair,
                                            {"learning_rate", "num_steps", "momentum"});
  }
  for (const char* const op :
       {"Linreg>L2LossGrad", "Linreg>HessianVectorProduct", "Linreg>GradientDescent"}) {
    RegisterKernel<NoKernelOp>(op, device, nullptr);
  }
  RegisterKernel<SavedGradientOp>("Linreg>SavedGradient", device, nullptr);
  return true;
}

}  // namespace linreg_ops
