// The ops on the CPU: TensorFlow's threads, allocator and cancellation around the kernels.
#include <cstdint>

#include "kernels/cpu/for_each_problem.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/threadpool.h"
#include "tf/intra_op_threads.h"
#include "tf/op_kernels.h"
#include "tf/problem.h"

namespace linreg_ops {
namespace {

using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

// Calls solve for every problem of the batch, with the op's threads and TensorFlow's allocator.
template <typename WorkspaceBytes, typename Solve>
absl::Status ForEachProblem(OpKernelContext* ctx, const Problem& problem,
                            const WorkspaceBytes& workspace_bytes, const Solve& solve) {
  tensorflow::thread::ThreadPool* pool = ctx->device()->tensorflow_cpu_worker_threads()->workers;
  Tensor workspace;
  absl::Status allocated;
  const auto allocate = [&](std::int64_t bytes) -> void* {
    allocated = ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), &workspace);
    return allocated.ok() ? workspace.data() : nullptr;
  };
  const Status status = cpu::ForEachProblem(problem, IntraOpThreads(pool, pool->NumThreads()),
                                            workspace_bytes, allocate, solve);
  return allocated.ok() ? ToAbsl(status) : allocated;
}

class CpuHost {
 public:
  explicit CpuHost(OpKernelConstruction*) {}

  template <typename Output>
  absl::Status LossGrad(OpKernelContext* ctx, const Problem& problem, const Output& output) {
    if (problem.first.shape.n == 0) {
      cpu::WriteEmptySums(problem, output(0));
      return absl::OkStatus();
    }
    return ForEachProblem(
        ctx, problem, [](const Data& data, int count) { return cpu::WorkspaceBytes(data, count); },
        [&](std::int64_t i, const cpu::Threads& threads, void* workspace, std::int64_t bytes) {
          return cpu::ComputeLossGrad(problem.at(i), output(i), threads, workspace, bytes);
        });
  }

  template <typename Each>
  absl::Status Descend(OpKernelContext* ctx, const Problem& problem, const Descent&,
                       const Each& descent) {
    return ForEachProblem(
        ctx, problem,
        [](const Data& data, int count) { return cpu::DescentWorkspaceBytes(data, count); },
        [&](std::int64_t i, const cpu::Threads& threads, void* workspace, std::int64_t bytes) {
          return cpu::ComputeDescent(problem.at(i), descent(i), threads, workspace, bytes);
        });
  }
};

LINREG_OPS_REGISTER_ALL(tensorflow::DEVICE_CPU, CpuHost);

}  // namespace
}  // namespace linreg_ops
