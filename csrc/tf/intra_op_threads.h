// TensorFlow's intra-op pool as the kernels' threads, whoever hands it out: an op's device, or XLA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "host/worker_pool.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/util/work_sharder.h"

namespace linreg_ops {

struct HostsWorkers : cpu::WorkerPool {
  HostsWorkers() : WorkerPool(cpu::Owner::kHost) {}
};

// `size` threads of a pool, within the budget of this thread, which tf.data lowers for its parallel
// calls. `pool->Schedule(closure)` must work for as long as the result is used.
template <typename Pool>
cpu::Threads IntraOpThreads(Pool* pool, std::int64_t size) {
  const std::int64_t budget = tensorflow::GetPerThreadMaxParallelism();
  cpu::Threads threads;
  threads.count = static_cast<int>(std::max<std::int64_t>(1, std::min(size, budget)));
  threads.pool = pool;
  threads.run = [](void* context, int workers, void (*body)(void*), void* arg) {
    Pool* const target = static_cast<Pool*>(context);
    cpu::OneOfProcess<HostsWorkers>().Run(
        [target](auto closure) { target->Schedule(std::move(closure)); }, workers, body, arg);
  };
  return threads;
}

}  // namespace linreg_ops
