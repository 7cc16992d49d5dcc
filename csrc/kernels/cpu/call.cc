// A call: validated, planned, and run; one evaluation here, a descent in descent.cc.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/call_plan.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/evaluation.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/plan.h"

namespace linreg_ops {
namespace cpu {
namespace {

bool IsHalf(DType type) { return SizeOf(type) == 2; }

// Sums over no rows, of no terms, or for no targets, all 0. Their sizes need not fit in any memory,
// so nothing may be made of any of them but the outputs.
bool NothingToSum(const Data& data) {
  const Shape& shape = data.shape;
  return shape.n == 0 || shape.k == 0 || (shape.weight_rows() == 0 && data.y == nullptr);
}

// X is a column of ones, and so are the row weights, and Y is 0: n equal terms.
bool EqualTerms(const Data& data) {
  return data.shape.d == 0 && data.y == nullptr && data.sample_weight == nullptr;
}

// An engine for n equal terms: X·W is the intercept in every row.
template <class C>
void SumEqualTerms(const Problem& p, const Plan&, char*, int, int, int) {
  const C* const w = static_cast<const C*>(p.w);
  C* const grad = static_cast<C*>(p.grad);
  const double n = static_cast<double>(p.n);
  for (std::int64_t t = 0; t < p.k; ++t) {
    const double r = static_cast<double>(w[t]);
    p.loss[t] = n * (r * r);
    if (grad != nullptr) grad[t] = static_cast<C>(n * r);
  }
}
constexpr Engine kEqualTermsFloat = {nullptr, SumEqualTerms<float>};
constexpr Engine kEqualTermsDouble = {nullptr, SumEqualTerms<double>};

void PlanEngine(int threads, CallPlan* call) {
  const Data& data = call->sizes;
  if (EqualTerms(data)) {
    call->engine = data.x_type == DType::kFloat64 ? &kEqualTermsDouble : &kEqualTermsFloat;
    call->plan.stages = call->plan.tasks[0] = call->plan.workers = 1;
  } else {
    call->plan = MakePlan(data, threads, call->kind == Call::Kind::kDescent, *call->kernels);
    call->engine = &call->kernels->engine(call->plan.route);
  }
}

void PlanWorkspace(CallPlan* call) {
  const bool half = IsHalf(call->sizes.w_type), descent = call->kind == Call::Kind::kDescent;
  const std::int64_t bytes = call->weights() * call->compute_size();
  Reserve reserve;
  call->loss = reserve(call->sizes.shape.k * 8);
  if (half) call->w = reserve(bytes);
  if (half || descent) call->grad = reserve(bytes);
  if (descent) call->velocity = reserve(bytes);
  call->engine_workspace = reserve(call->plan.workspace_bytes);
  call->workspace_bytes = reserve.bytes();
}

// Whether a call that was made for `planned` may run on `data`.
Status CheckSame(const Data& planned, const Data& data) {
  const Shape &a = planned.shape, &b = data.shape;
  const auto both = [](const void* p, const void* q) { return (p == nullptr) == (q == nullptr); };
  if (a.n == b.n && a.d == b.d && a.k == b.k && a.intercept == b.intercept &&
      planned.x_type == data.x_type && planned.w_type == data.w_type && both(planned.x, data.x) &&
      both(planned.w, data.w) && both(planned.y, data.y) &&
      both(planned.sample_weight, data.sample_weight)) {
    return Status();
  }
  return Status::InvalidArgument("the call was made for other sizes, types or arrays");
}

Status CheckRun(const CallPlan* call, Call::Kind kind, const Data& data, const void* workspace,
                std::int64_t given) {
  if (call == nullptr || call->kind != kind) {
    return Status::InvalidArgument("the call was not made, or made for the other kind");
  }
  if (Status status = CheckSame(call->sizes, data); !status.ok()) return status;
  const std::int64_t needed = call->workspace_bytes;
  if (given >= needed && (workspace != nullptr || needed == 0)) return Status();
  return Status::InvalidArgument("workspace has " + std::to_string(given) + " bytes, needs " +
                                 std::to_string(needed));
}

void WriteZeros(const Data& data, const LossGrad& out) {
  const std::int64_t width = static_cast<std::int64_t>(SizeOf(data.w_type)), k = data.shape.k;
  const auto zero = [width](void* array, std::int64_t size) {
    if (array != nullptr && size > 0) {
      std::memset(array, 0, static_cast<std::size_t>(size * width));
    }
  };
  zero(out.loss, out.loss_per_target ? k : 1);
  zero(out.grad, data.shape.weight_rows() * k);
}

}  // namespace

Call::Call() = default;
Call::Call(Call&&) noexcept = default;
Call& Call::operator=(Call&&) noexcept = default;
Call::~Call() = default;

std::int64_t Call::workspace_bytes() const { return plan_ ? plan_->workspace_bytes : 0; }

Status Call::Make(Kind kind, const Data& data, int threads, const char* isa, Call* call) {
  if (Status status = Validate(data); !status.ok()) return status;
  CallPlan plan = {};
  plan.kind = kind;
  plan.sizes = data;
  Status status = FindKernels(isa, data.x_type, data.w_type, &plan.isa, &plan.kernels);
  if (!status.ok()) return status;
  if (!NothingToSum(data)) {
    PlanEngine(threads, &plan);
    PlanWorkspace(&plan);
  }
  call->plan_ = std::make_unique<const CallPlan>(plan);
  return Status();
}

PlanInfo Call::Explain() const {
  PlanInfo info = {};
  info.route = {Route::kPlain, "none", "n = 0 or k = 0", "sums over nothing are 0"};
  if (plan_ == nullptr) return info;
  info.isa = plan_->isa;
  if (plan_->engine == nullptr) return info;
  const Plan& plan = plan_->plan;
  for (const RouteInfo& route : Routes()) {
    if (route.route == plan.route) info.route = route;
  }
  info.workers = plan.workers;
  for (int stage = 0; stage < std::min(plan.stages, 3); ++stage) {
    info.tasks = std::max<std::int64_t>(info.tasks, plan.tasks[stage]);
  }
  info.tile_rows = plan.tile_rows;
  info.workspace_bytes = plan_->workspace_bytes;
  return info;
}

Status Call::Run(const Data& data, const LossGrad& out, const Threads& threads, void* workspace,
                 std::int64_t workspace_bytes) const {
  Status status = CheckRun(plan_.get(), Kind::kLossGrad, data, workspace, workspace_bytes);
  if (!status.ok()) return status;
  const CallPlan& call = *plan_;
  Cancellation cancellation({out.cancelled, out.cancelled_context});
  if (cancellation.Ask()) return Cancellation::Before(0);
  if (call.engine == nullptr) {
    WriteZeros(data, out);
    return Status();
  }
  const IeeeFloats ieee;
  char* const base = static_cast<char*>(workspace);
  const Kernels& kernels = *call.kernels;
  Evaluation evaluation(call, data, base, cancellation);
  Problem& problem = evaluation.problem;
  problem.grad = out.grad;
  if (call.w != CallPlan::kCallers) {
    kernels.widen(data.w, base + call.w, call.weights());
    problem.w = base + call.w;
    if (out.grad != nullptr) problem.grad = base + call.grad;
  }
  RunStages(evaluation, call.plan, threads);
  if (cancellation.seen()) return Cancellation::Before(0);
  if (out.loss != nullptr && out.loss_per_target) {
    for (std::int64_t t = 0; t < problem.k; ++t) {
      WriteRounded(kernels, 0.5 * problem.loss[t], out.loss, t);
    }
  } else if (out.loss != nullptr) {
    WriteRounded(kernels, HalfSum(problem.loss, problem.k), out.loss, 0);
  }
  if (problem.grad != out.grad) kernels.narrow(problem.grad, out.grad, call.weights());
  return Status();
}

Status Call::Run(const Data& data, const Descent& descent, const Threads& threads, void* workspace,
                 std::int64_t workspace_bytes) const {
  Status status = CheckRun(plan_.get(), Kind::kDescent, data, workspace, workspace_bytes);
  if (status.ok()) status = ValidateDescent(data.shape, descent);
  if (!status.ok()) return status;
  return RunDescent(*plan_, data, descent, threads, static_cast<char*>(workspace));
}

}  // namespace cpu
}  // namespace linreg_ops
