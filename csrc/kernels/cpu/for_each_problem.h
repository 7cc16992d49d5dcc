// A batch of problems of one shape, shared among the caller's threads. For every host that runs the
// CPU kernels: TensorFlow's ops and XLA's custom calls.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>

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

// Calls solve(index, threads, workspace, bytes) for every problem: many small ones side by side, a
// thread each; otherwise one after the other with all threads. The bits are the same.
// `workspace_bytes(data, threads)` is what one call needs; `allocate(bytes)` returns that much
// memory, aligned to 64 bytes, or null. Small problems do not ask for any: an allocation would cost
// more than the work.
template <typename WorkspaceBytes, typename Allocate, typename Solve>
Status ForEachProblem(const Batch& batch, const Threads& threads,
                      const WorkspaceBytes& workspace_bytes, const Allocate& allocate,
                      const Solve& solve) {
  const Shape& shape = batch.first.shape;
  // About what one thread does in the time that waking another takes.
  constexpr double kSmallProblem = 1 << 18;
  const double work = static_cast<double>(shape.n) * static_cast<double>(shape.weight_rows()) *
                      static_cast<double>(shape.k);
  const bool side_by_side = batch.count > 1 && threads.count > 1 && work < kSmallProblem;
  const bool worth_waking = work * static_cast<double>(batch.count) >= kSmallProblem;
  const int workers = side_by_side && worth_waking
                          ? static_cast<int>(std::min<std::int64_t>(threads.count, batch.count))
                          : 1;

  alignas(64) char small[8192];
  const std::int64_t needed = workspace_bytes(batch.first, side_by_side ? 1 : threads.count);
  if (needed > std::numeric_limits<std::int64_t>::max() / 2 / workers) {
    return {Status::Code::kOutOfMemory, "the workspace exceeds the address space"};
  }
  const std::int64_t bytes = (needed + 63) / 64 * 64;
  const bool fits = bytes * workers <= static_cast<std::int64_t>(sizeof(small));
  char* base = fits ? small : static_cast<char*>(allocate(bytes * workers));
  if (base == nullptr) {
    return {Status::Code::kOutOfMemory,
            "out of memory for a workspace of " + std::to_string(bytes * workers) + " bytes"};
  }

  if (!side_by_side) {
    Status status;
    for (std::int64_t i = 0; i < batch.count && status.ok(); ++i) {
      status = solve(i, threads, base, bytes);
    }
    return status;
  }
  struct Job {
    const Solve& solve;
    char* const base;
    const std::int64_t bytes;
    const std::int64_t count;
    std::atomic<std::int64_t> next{0};
    std::atomic<int> slot{0};
    std::mutex mu;
    Status status;
  } job{solve, base, bytes, batch.count, {}, {}, {}, {}};
  const auto body = [](void* arg) {
    Job* job = static_cast<Job*>(arg);
    void* workspace = job->base + job->slot.fetch_add(1) * job->bytes;
    for (std::int64_t i; (i = job->next.fetch_add(1)) < job->count;) {
      Status status = job->solve(i, Threads(), workspace, job->bytes);
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

}  // namespace cpu
}  // namespace linreg_ops
