// The ops on the CPU: TensorFlow's threads, allocator and cancellation around the kernels.
#include <cstdint>

#include "host/batch.h"
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

class CpuHost {
 public:
  explicit CpuHost(OpKernelConstruction*) {}

  template <typename Output>
  absl::Status Run(OpKernelContext* ctx, const Problem& problem, const Output& output) {
    tensorflow::thread::ThreadPool* pool = ctx->device()->tensorflow_cpu_worker_threads()->workers;
    Tensor workspace;
    absl::Status allocated;
    const auto allocate = [&](std::int64_t bytes) -> void* {
      allocated = ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), &workspace);
      return allocated.ok() ? workspace.data() : nullptr;
    };
    const Status status = cpu::RunBatch(problem, IntraOpThreads(pool, pool->NumThreads()),
                                        /*isa=*/nullptr, output, allocate);
    return allocated.ok() ? ToAbsl(status) : allocated;
  }
};

const bool registered = RegisterOps<CpuHost>(tensorflow::DEVICE_CPU);

}  // namespace
}  // namespace linreg_ops
