// Batches of problems on the CPU, for TensorFlow's ops, XLA's custom calls and NumPy: planned once,
// then run side by side or one after the other.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

// `count` problems, each contiguous, one behind the other.
struct Batch {
  Data first;
  std::int64_t count = 1;

  Data at(std::int64_t index) const {
    Data data = first;
    const Shape& s = data.shape;
    data.x = Advance(first.x, index * (s.n * s.d), first.x_type);
    data.w = Advance(first.w, index * (s.weight_rows() * s.k), first.w_type);
    data.y = Advance(first.y, index * (s.n * s.k), first.w_type);
    data.sample_weight = Advance(first.sample_weight, index * s.n, first.w_type);
    return data;
  }

  // Element `index · elements` of an output of w's type.
  void* Offset(void* base, std::int64_t index, std::int64_t elements) const {
    return const_cast<void*>(Advance(base, index * elements, first.w_type));
  }

 private:
  static const void* Advance(const void* base, std::int64_t elements, DType type) {
    if (base == nullptr) return nullptr;
    return static_cast<const char*>(base) + elements * static_cast<std::int64_t>(SizeOf(type));
  }
};

namespace cpu {

// Writes the results of a batch of problems without a row, which are zeros, as one. `first` is the
// first problem's.
inline void WriteEmptySums(const Batch& batch, const LossGrad& first) {
  const Shape& shape = batch.first.shape;
  const auto zero = [&](void* array, std::int64_t elements) {
    const auto bytes = static_cast<std::size_t>(batch.count * elements);
    if (array != nullptr) std::memset(array, 0, bytes * SizeOf(batch.first.w_type));
  };
  zero(first.loss, first.loss_per_target ? shape.k : 1);
  zero(first.grad, shape.weight_rows() * shape.k);
}

// Many small problems go side by side, a thread each; others one after the other, with all threads.
// The bits are the same.
struct BatchPlan {
  bool side_by_side;
  int workers;  // side by side

  BatchPlan(const Batch& batch, int threads) {
    // About what one thread does in the time that waking another takes.
    constexpr double kSmallProblem = 1 << 18;
    const Shape& shape = batch.first.shape;
    const double work = static_cast<double>(shape.n) * static_cast<double>(shape.weight_rows()) *
                        static_cast<double>(shape.k);
    side_by_side = batch.count > 1 && threads > 1 && work < kSmallProblem;
    const bool worth_waking = work * static_cast<double>(batch.count) >= kSmallProblem;
    workers = side_by_side && worth_waking
                  ? static_cast<int>(std::min<std::int64_t>(threads, batch.count))
                  : 1;
  }
};

// Calls solve(index, workspace) for every problem, on `workers` threads; each has `bytes` of its
// own behind `base`. The first error ends it.
template <typename Solve>
Status RunSideBySide(std::int64_t count, int workers, const Threads& threads, char* base,
                     std::int64_t bytes, const Solve& solve) {
  struct Job {
    const Solve& solve;
    char* const base;
    const std::int64_t bytes;
    const std::int64_t count;
    std::atomic<std::int64_t> next{0};
    std::atomic<int> slot{0};
    std::mutex mu;
    Status status;
  } job{solve, base, bytes, count, {}, {}, {}, {}};
  const auto body = [](void* arg) {
    Job* job = static_cast<Job*>(arg);
    void* workspace = job->base + job->slot.fetch_add(1) * job->bytes;
    for (std::int64_t i; (i = job->next.fetch_add(1)) < job->count;) {
      Status status = job->solve(i, workspace);
      if (status.ok()) continue;
      job->next = job->count;  // the rest is not wanted
      std::lock_guard<std::mutex> lock(job->mu);
      if (job->status.ok()) job->status = std::move(status);
    }
  };
  if (workers == 1) {
    body(&job);
  } else {
    threads.run(threads.pool, workers, body, &job);
  }
  return job.status;
}

// Solves every problem of a batch that is not empty. `output(index)` is a LossGrad, or a Descent,
// of each; `allocate(bytes)` returns that much memory, aligned to 64 bytes, or null. Small problems
// do not ask for any: an allocation would cost more than the work.
template <typename Output, typename Allocate>
Status RunBatch(const Batch& batch, const Threads& threads, const char* isa, const Output& output,
                Allocate&& allocate) {
  constexpr bool kDescent = std::is_same_v<decltype(output(0)), Descent>;
  const BatchPlan plan(batch, threads.count);
  Call call;
  if (Status status = Call::Make(kDescent ? Call::Kind::kDescent : Call::Kind::kLossGrad,
                                 batch.first, plan.side_by_side ? 1 : threads.count, isa, &call);
      !status.ok()) {
    return status;
  }
  if constexpr (!kDescent) {
    if (batch.first.shape.n == 0) {
      WriteEmptySums(batch, output(0));
      return Status();
    }
  }
  alignas(64) char small[8192];
  const std::int64_t needed = call.workspace_bytes();
  if (needed > std::numeric_limits<std::int64_t>::max() / 2 / plan.workers) {
    return {Status::Code::kOutOfMemory, "the workspace exceeds the address space"};
  }
  const std::int64_t bytes = (needed + 63) / 64 * 64, total = bytes * plan.workers;
  const bool fits = total <= static_cast<std::int64_t>(sizeof(small));
  char* const base = fits ? small : static_cast<char*>(allocate(total));
  if (base == nullptr) {
    return {Status::Code::kOutOfMemory,
            "out of memory for a workspace of " + std::to_string(total) + " bytes"};
  }
  if (plan.side_by_side) {
    return RunSideBySide(batch.count, plan.workers, threads, base, bytes,
                         [&](std::int64_t i, void* workspace) {
                           return call.Run(batch.at(i), output(i), Threads(), workspace, bytes);
                         });
  }
  Status status;
  for (std::int64_t i = 0; i < batch.count && status.ok(); ++i) {
    status = call.Run(batch.at(i), output(i), threads, base, bytes);
  }
  return status;
}

}  // namespace cpu
}  // namespace linreg_ops
