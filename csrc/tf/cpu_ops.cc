// The ops on the CPU: TensorFlow's threads, allocator and cancellation around the kernels.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/for_each_problem.h"
#include "kernels/cpu/run_joined.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/threadpool.h"
#include "tensorflow/core/util/work_sharder.h"
#include "tf/problem.h"

namespace linreg_ops {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

// The intra-op pool within the caller's budget, which tf.data lowers for its parallel calls.
cpu::Threads IntraOpThreads(OpKernelContext* ctx) {
  tensorflow::thread::ThreadPool* pool = ctx->device()->tensorflow_cpu_worker_threads()->workers;
  cpu::Threads threads;
  threads.count =
      std::max(1, std::min(pool->NumThreads(), tensorflow::GetPerThreadMaxParallelism()));
  threads.pool = pool;
  threads.run = [](void* context, int workers, void (*body)(void*), void* arg) {
    auto* target = static_cast<tensorflow::thread::ThreadPool*>(context);
    cpu::RunJoined([target](auto closure) { target->Schedule(std::move(closure)); }, workers, body,
                   arg);
  };
  return threads;
}

// Calls solve for every problem of the batch, with the op's threads and TensorFlow's allocator.
template <typename WorkspaceBytes, typename Solve>
absl::Status ForEachProblem(OpKernelContext* ctx, const Problem& problem,
                            const WorkspaceBytes& workspace_bytes, const Solve& solve) {
  Tensor workspace;
  absl::Status allocated;
  const auto allocate = [&](std::int64_t bytes) -> void* {
    allocated = ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), &workspace);
    return allocated.ok() ? workspace.data() : nullptr;
  };
  const Status status =
      cpu::ForEachProblem(problem, IntraOpThreads(ctx), workspace_bytes, allocate, solve);
  return allocated.ok() ? ToAbsl(status) : allocated;
}

class L2LossGradOp : public OpKernel {
 public:
  explicit L2LossGradOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("loss_per_target", &loss_per_target_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), &ctx->input(2), sample_weight,
                                    intercept_, &problem));
    TensorShape loss_shape = problem.batch_shape;
    const bool rank_1 = problem.weight_shape.dims() == 1;
    const std::int64_t k = problem.first.shape.k;
    if (loss_per_target_ && !rank_1) loss_shape.AddDim(k);
    Tensor* loss;
    Tensor* grad;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, loss_shape, &loss));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, problem.weight_shape, &grad));
    const std::int64_t losses = loss_per_target_ ? k : 1;
    OP_REQUIRES_OK(
        ctx,
        ForEachProblem(
            ctx, problem, cpu::WorkspaceBytes,
            [&](std::int64_t i, const cpu::Threads& threads, void* scratch, std::int64_t bytes) {
              LossGrad out;
              out.loss = problem.Offset(loss->data(), i, losses);
              out.loss_per_target = loss_per_target_;
              out.grad = problem.Offset(grad->data(), i, problem.first.shape.weight_rows() * k);
              return cpu::ComputeLossGrad(problem.at(i), out, threads, scratch, bytes);
            }));
  }

 private:
  bool intercept_;
  bool loss_per_target_;
};

class HessianVectorProductOp : public OpKernel {
 public:
  explicit HessianVectorProductOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), nullptr, sample_weight,
                                    intercept_, &problem));
    Tensor* product;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, problem.weight_shape, &product));
    const std::int64_t size = problem.first.shape.weight_rows() * problem.first.shape.k;
    OP_REQUIRES_OK(ctx, ForEachProblem(ctx, problem, cpu::WorkspaceBytes,
                                       [&](std::int64_t i, const cpu::Threads& threads,
                                           void* scratch, std::int64_t bytes) {
                                         LossGrad out;
                                         out.grad = problem.Offset(product->data(), i, size);
                                         return cpu::ComputeLossGrad(problem.at(i), out, threads,
                                                                     scratch, bytes);
                                       }));
  }

 private:
  bool intercept_;
};

class SavedGradientOp : public OpKernel {
 public:
  using OpKernel::OpKernel;
  void Compute(OpKernelContext* ctx) override { ctx->set_output(0, ctx->input(1)); }
  bool IsExpensive() override { return false; }
};

class GradientDescentOp : public OpKernel {
 public:
  explicit GradientDescentOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor* sample_weight;
    Problem problem;
    Descent descent;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), &ctx->input(2), sample_weight,
                                    intercept_, &problem));
    OP_REQUIRES_OK(ctx, MakeDescent(ctx->input(3), ctx->input(4), ctx->input(5), &descent));
    Tensor* w;
    Tensor* losses;
    TensorShape losses_shape = problem.batch_shape;
    OP_REQUIRES_OK(ctx, losses_shape.AddDimWithStatus(descent.num_steps + 1));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, problem.weight_shape, &w));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, losses_shape, &losses));
    if (tensorflow::CancellationManager* cancellation = ctx->cancellation_manager()) {
      descent.cancelled_context = cancellation;
      descent.cancelled = [](void* manager) {
        return static_cast<tensorflow::CancellationManager*>(manager)->IsCancelled();
      };
    }
    const std::int64_t size = problem.first.shape.weight_rows() * problem.first.shape.k;
    OP_REQUIRES_OK(
        ctx,
        ForEachProblem(
            ctx, problem, cpu::DescentWorkspaceBytes,
            [&](std::int64_t i, const cpu::Threads& threads, void* scratch, std::int64_t bytes) {
              Descent one = descent;
              one.w = problem.Offset(w->data(), i, size);
              one.losses = problem.Offset(losses->data(), i, descent.num_steps + 1);
              return cpu::ComputeDescent(problem.at(i), one, threads, scratch, bytes);
            }));
  }

 private:
  bool intercept_;
};

#define REGISTER_CPU(Tx, Tw)                                  \
  REGISTER_KERNEL_BUILDER(Name("Linreg>L2LossGrad")           \
                              .Device(tensorflow::DEVICE_CPU) \
                              .TypeConstraint<Tx>("Tx")       \
                              .TypeConstraint<Tw>("Tw"),      \
                          L2LossGradOp);                      \
  REGISTER_KERNEL_BUILDER(Name("Linreg>HessianVectorProduct") \
                              .Device(tensorflow::DEVICE_CPU) \
                              .TypeConstraint<Tx>("Tx")       \
                              .TypeConstraint<Tw>("Tw"),      \
                          HessianVectorProductOp);            \
  REGISTER_KERNEL_BUILDER(Name("Linreg>GradientDescent")      \
                              .Device(tensorflow::DEVICE_CPU) \
                              .TypeConstraint<Tx>("Tx")       \
                              .TypeConstraint<Tw>("Tw"),      \
                          GradientDescentOp)

REGISTER_CPU(float, float);
REGISTER_CPU(double, double);
REGISTER_CPU(Eigen::half, Eigen::half);
REGISTER_CPU(Eigen::half, float);
REGISTER_CPU(Eigen::bfloat16, Eigen::bfloat16);
REGISTER_CPU(Eigen::bfloat16, float);
REGISTER_KERNEL_BUILDER(Name("Linreg>SavedGradient").Device(tensorflow::DEVICE_CPU),
                        SavedGradientOp);

}  // namespace
}  // namespace linreg_ops
