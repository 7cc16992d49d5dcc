// The ops on the CPU: TensorFlow's threads, allocator and cancellation around the kernels.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "kernels/cpu/run_joined.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/mutex.h"
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

// Scratch memory for `slots` calls at a time: the stack for small problems, where an allocation
// would cost more than the work, else TensorFlow's allocator.
class Workspace {
 public:
  absl::Status Allocate(OpKernelContext* ctx, std::int64_t bytes, std::int64_t slots) {
    if (bytes > std::numeric_limits<std::int64_t>::max() / 2 / slots) {
      return absl::ResourceExhaustedError("the workspace exceeds the address space");
    }
    bytes_ = (bytes + 63) / 64 * 64;
    if (bytes_ * slots <= static_cast<std::int64_t>(sizeof(inline_))) {
      base_ = inline_;
      return absl::OkStatus();
    }
    absl::Status status =
        ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes_ * slots}), &tensor_);
    if (status.ok()) base_ = static_cast<char*>(tensor_.data());
    return status;
  }
  void* slot(std::int64_t index) const { return base_ + index * bytes_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  alignas(64) char inline_[8192];
  Tensor tensor_;
  char* base_ = nullptr;
  std::int64_t bytes_ = 0;
};

// Calls solve(index, threads, workspace, bytes) for every problem of a batch: many small ones side
// by side, a thread each; otherwise one after the other with all threads. The bits are the same.
template <typename WorkspaceBytes, typename Solve>
absl::Status ForEachProblem(OpKernelContext* ctx, const Problem& problem,
                            const WorkspaceBytes& workspace_bytes, const Solve& solve) {
  const cpu::Threads threads = IntraOpThreads(ctx);
  const Shape& shape = problem.first.shape;
  // About what one thread does in the time that waking another takes.
  constexpr double kSmallProblem = 1 << 18;
  const double work = static_cast<double>(shape.n) * static_cast<double>(shape.weight_rows()) *
                      static_cast<double>(shape.k);
  const bool side_by_side = problem.batch > 1 && threads.count > 1 && work < kSmallProblem;
  const bool worth_waking = work * static_cast<double>(problem.batch) >= kSmallProblem;
  const int workers = side_by_side && worth_waking
                          ? static_cast<int>(std::min<std::int64_t>(threads.count, problem.batch))
                          : 1;
  const int threads_each = side_by_side ? 1 : threads.count;

  Workspace workspace;
  absl::Status status =
      workspace.Allocate(ctx, workspace_bytes(problem.first, threads_each), workers);
  if (!status.ok()) return status;
  if (!side_by_side) {
    for (std::int64_t i = 0; i < problem.batch && status.ok(); ++i) {
      status = ToAbsl(solve(i, threads, workspace.slot(0), workspace.bytes()));
    }
    return status;
  }
  struct Job {
    const Solve& solve;
    const Workspace& workspace;
    const std::int64_t batch;
    std::atomic<std::int64_t> next{0};
    std::atomic<int> slot{0};
    tensorflow::mutex mu;
    absl::Status status;
  } job{solve, workspace, problem.batch, {}, {}, {}, {}};
  const auto body = [](void* arg) {
    Job* job = static_cast<Job*>(arg);
    void* scratch = job->workspace.slot(job->slot.fetch_add(1));
    for (std::int64_t i; (i = job->next.fetch_add(1)) < job->batch;) {
      Status status = job->solve(i, cpu::Threads(), scratch, job->workspace.bytes());
      if (!status.ok()) {
        tensorflow::mutex_lock lock(job->mu);
        job->status.Update(ToAbsl(status));
      }
    }
  };
  if (workers == 1) {
    body(&job);
  } else {
    threads.run(threads.pool, workers, body, &job);
  }
  return job.status;
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
