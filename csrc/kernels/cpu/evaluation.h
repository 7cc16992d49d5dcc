// One evaluation out of an engine's stages: what one call runs once, and a descent in every step.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "kernels/cpu/call_plan.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/stages.h"
#include "kernels/l2_loss_grad.h"
#include "kernels/sizes.h"

namespace linreg_ops {
namespace cpu {

// What the caller wants, as far as any of the call's threads has heard.
class Cancellation {
 public:
  explicit Cancellation(Cancellable caller) : caller_(caller) {}
  bool seen() const { return seen_.load(std::memory_order_relaxed); }
  bool Ask() {
    if (caller_.cancelled == nullptr) return false;
    if (!seen() && caller_.cancelled(caller_.cancelled_context)) seen_ = true;
    return seen();
  }
  static Status Before(std::int64_t step) {
    return {Status::Code::kCancelled, "cancelled before step " + std::to_string(step)};
  }

 private:
  const Cancellable caller_;
  std::atomic<bool> seen_{false};
};

// The stages of one evaluation at a time. `problem` is the driver's to change between evaluations.
class Evaluation {
 public:
  Evaluation(const CallPlan& call, const Data& data, char* workspace, Cancellation& cancellation)
      : plan_(call.plan),
        engine_(*call.engine),
        workspace_(workspace + call.engine_workspace),
        cancellation_(cancellation) {
    const Shape& shape = data.shape;
    problem.n = shape.n;
    problem.d = shape.d;
    problem.k = shape.k;
    problem.intercept = shape.intercept;
    problem.wide_y = data.w_type == DType::kFloat32 || data.w_type == DType::kFloat64;
    problem.x = data.x;
    problem.w = data.w;
    problem.y = data.y;
    problem.sample_weight = data.sample_weight;
    problem.loss = reinterpret_cast<double*>(workspace + call.loss);
    long_pass_ = SaturatingProduct({shape.n, shape.weight_rows(), shape.k}) > kLongPass;
    if (!long_pass_) return;
    problem.cancelled = [](void* self) { return static_cast<Cancellation*>(self)->Ask(); };
    problem.cancelled_context = &cancellation;
  }

  Problem problem = {};
  char* workspace() const { return workspace_; }

  // Returns the number of the first stage's tasks.
  int Begin() {
    stage_ = 0;
    if (engine_.prepare != nullptr) engine_.prepare(problem, plan_, workspace_);
    return TasksOf(plan_, 0);
  }

  void Run(int task, int worker) const {
    if (cancellation_.seen()) return;
    engine_.run(problem, plan_, workspace_, stage_, task, worker);
    if (long_pass_) cancellation_.Ask();
  }

  // Goes to the next stage, and returns the number of its tasks; 0 at the end.
  int Next() {
    ++stage_;
    return stage_ == plan_.stages || cancellation_.seen() ? 0 : TasksOf(plan_, stage_);
  }

 private:
  // A pass over so many products is long enough, some milliseconds, to ask after each of its tasks.
  static constexpr std::int64_t kLongPass = 1 << 24;

  const Plan& plan_;
  const Engine& engine_;
  char* const workspace_;
  Cancellation& cancellation_;
  bool long_pass_;
  int stage_ = 0;
};

// Runs what has Begin, Run and Next as Evaluation has them: on the caller's threads, if the plan
// finds work for several.
template <class Staged>
void RunStages(Staged& staged, const Plan& plan, const Threads& threads) {
  int tasks = staged.Begin();
  if (plan.workers <= 1 || threads.run == nullptr) {
    for (; tasks > 0; tasks = staged.Next()) {
      for (int task = 0; task < tasks; ++task) staged.Run(task, 0);
    }
    return;
  }
  Stages::Work work;
  work.self = &staged;
  work.run = [](void* self, int task, int worker) {
    const IeeeFloats ieee;
    static_cast<Staged*>(self)->Run(task, worker);
  };
  work.next = [](void* self) {
    const IeeeFloats ieee;
    return static_cast<Staged*>(self)->Next();
  };
  Stages stages(work, tasks);
  threads.run(threads.pool, plan.workers, Stages::Body, &stages);
}

// ½ Σ of the targets' losses.
inline double HalfSum(const double* loss, std::int64_t k) {
  double total = 0;
  for (std::int64_t t = 0; t < k; ++t) total += loss[t];
  return 0.5 * total;
}

// array[i] = value in w's type. One of 16 bits is rounded twice, to float first.
inline void WriteRounded(const Kernels& kernels, double value, void* array, std::int64_t i) {
  if (kernels.types.w == DType::kFloat64) {
    static_cast<double*>(array)[i] = value;
  } else if (kernels.types.w == DType::kFloat32) {
    static_cast<float*>(array)[i] = static_cast<float>(value);
  } else {
    const float rounded = static_cast<float>(value);
    kernels.narrow(&rounded, static_cast<std::uint16_t*>(array) + i, 1);
  }
}

}  // namespace cpu
}  // namespace linreg_ops
