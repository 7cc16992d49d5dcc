// A whole descent in one call: an evaluation and a step in turn, with no thread let go between
// them.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/call_plan.h"
#include "kernels/cpu/evaluation.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

// Where there are no weights to move, or no loss but 0: every loss is the same.
void FillLosses(const Kernels& kernels, const Descent& descent, double loss,
                Cancellation& cancellation) {
  constexpr std::int64_t kOften = 1 << 20;  // a millisecond
  for (std::int64_t t = 0; t <= descent.num_steps; ++t) {
    if (t % kOften == kOften - 1 && cancellation.Ask()) break;
    WriteRounded(kernels, loss, descent.losses, t);
  }
}

// The state of a descent; every member is written by one body at a time, between stages.
class DescentLoop {
 public:
  DescentLoop(const CallPlan& call, const Data& data, const Descent& descent, char* workspace,
              Cancellation& cancellation)
      : descent_(descent),
        kernels_(*call.kernels),
        cancellation_(cancellation),
        evaluation_(call, data, workspace, cancellation),
        w_(call.w == CallPlan::kCallers ? descent.w : workspace + call.w),
        grad_(workspace + call.grad),
        velocity_(workspace + call.velocity),
        size_(call.weights()) {
    const auto bytes = static_cast<std::size_t>(size_ * call.compute_size());
    if (call.w != CallPlan::kCallers) {
      kernels_.widen(data.w, w_, size_);
    } else if (bytes > 0) {
      std::memcpy(w_, data.w, bytes);
    }
    if (bytes > 0) std::memset(velocity_, 0, bytes);
    evaluation_.problem.w = w_;
    if (call.plan.route == Route::kLanePerRowPacked) {
      kernels_.pack(evaluation_.problem, call.plan, evaluation_.workspace());
    }
  }

  std::int64_t step() const { return step_; }
  const void* w() const { return w_; }

  // As RunStages wants them.
  int Begin() {
    evaluation_.problem.grad = step_ < descent_.num_steps ? grad_ : nullptr;
    return evaluation_.Begin();
  }
  void Run(int task, int worker) const { evaluation_.Run(task, worker); }
  int Next() {
    if (const int tasks = evaluation_.Next(); tasks > 0) return tasks;
    return Step() ? Begin() : 0;
  }

 private:
  // After an evaluation: records the loss, moves the weights. False at the end.
  bool Step() {
    if (cancellation_.seen()) return false;
    const double loss = HalfSum(evaluation_.problem.loss, evaluation_.problem.k);
    WriteRounded(kernels_, loss, descent_.losses, step_);
    if (step_ == descent_.num_steps) return false;
    if (size_ == 0) {
      FillLosses(kernels_, descent_, loss, cancellation_);
      return false;
    }
    const double rate = descent_.rates[descent_.num_rates == 1 ? 0 : step_];
    if (kernels_.types.x == DType::kFloat64) {
      Move<double>(rate);
    } else {
      Move<float>(rate);
    }
    ++step_;
    return !cancellation_.Ask();
  }

  // Every operation rounds in w's type, as the caller's own update would.
  template <class C>
  void Move(double rate) {
    C* const w = static_cast<C*>(w_);
    C* const v = static_cast<C*>(velocity_);
    const C* const g = static_cast<const C*>(grad_);
    const C r = static_cast<C>(rate), m = static_cast<C>(descent_.momentum);
    if (m == C(0)) {  // 0·v would turn an infinite v into nan
      for (std::int64_t i = 0; i < size_; ++i) w[i] -= r * g[i];
      return;
    }
    for (std::int64_t i = 0; i < size_; ++i) {
      v[i] = m * v[i] - r * g[i];
      w[i] += v[i];
    }
  }

  const Descent& descent_;
  const Kernels& kernels_;
  Cancellation& cancellation_;
  Evaluation evaluation_;
  void* const w_;  // compute type, as the next two
  void* const grad_;
  void* const velocity_;
  const std::int64_t size_;
  std::int64_t step_ = 0;
};

// All losses and gradients are 0. A rate or momentum that is not finite makes NaN of 0 as of any
// other gradient.
Status DescendNowhere(const CallPlan& call, const Data& data, const Descent& descent,
                      Cancellation& cancellation) {
  FillLosses(*call.kernels, descent, 0, cancellation);
  const std::int64_t size = call.weights();
  const auto finite = [&call](double value) {
    return std::isfinite(call.compute_size() == 8 ? value : static_cast<float>(value));
  };
  bool moved = descent.num_steps > 0 && !finite(descent.momentum);
  const std::int64_t used = descent.num_steps > 0 && size > 0 ? descent.num_rates : 0;
  for (std::int64_t t = 0; t < used && !moved; ++t) moved = !finite(descent.rates[t]);
  for (std::int64_t i = 0; moved && i < size; ++i) {
    WriteRounded(*call.kernels, std::numeric_limits<double>::quiet_NaN(), descent.w, i);
  }
  if (!moved && size > 0) {
    std::memcpy(descent.w, data.w, static_cast<std::size_t>(size) * SizeOf(data.w_type));
  }
  return cancellation.seen() ? Cancellation::Before(0) : Status();
}

}  // namespace

Status RunDescent(const CallPlan& call, const Data& data, const Descent& descent,
                  const Threads& threads, char* workspace) {
  Cancellation cancellation({descent.cancelled, descent.cancelled_context});
  if (cancellation.Ask()) return Cancellation::Before(0);
  if (call.engine == nullptr) return DescendNowhere(call, data, descent, cancellation);
  const IeeeFloats ieee;
  DescentLoop loop(call, data, descent, workspace, cancellation);
  RunStages(loop, call.plan, threads);
  if (call.w != CallPlan::kCallers) call.kernels->narrow(loop.w(), descent.w, call.weights());
  if (!cancellation.seen()) return Status();
  if (descent.steps_kept != nullptr) *descent.steps_kept = loop.step();
  return Cancellation::Before(loop.step());
}

}  // namespace cpu
}  // namespace linreg_ops
