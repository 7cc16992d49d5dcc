// The drivers: one evaluation, and a whole descent, out of the kernels' stages.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/stages.h"

namespace linreg_ops {
namespace cpu {
namespace {

constexpr std::int64_t kAlign = 64;
std::int64_t Aligned(std::int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

std::int64_t ComputeSize(const Data& data) { return data.x_type == DType::kFloat64 ? 8 : 4; }
bool IsHalf(DType type) { return SizeOf(type) == 2; }

// Deals out the workspace; counts alone when there is none yet.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class P>
  P* Take(std::int64_t bytes) {
    char* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += Aligned(bytes);
    return reinterpret_cast<P*>(at);
  }
  std::int64_t used() const { return used_; }

 private:
  char* base_;
  std::int64_t used_ = 0;
};

Status CheckWorkspace(const void* workspace, std::int64_t given, std::int64_t needed) {
  if (given >= needed && (workspace != nullptr || needed == 0)) return Status();
  return Status::InvalidArgument("workspace has " + std::to_string(given) + " bytes, needs " +
                                 std::to_string(needed));
}

Problem ProblemOf(const Data& data) {
  Problem problem = {};
  problem.n = data.shape.n;
  problem.d = data.shape.d;
  problem.k = data.shape.k;
  problem.intercept = data.shape.intercept;
  problem.wide_y = data.w_type == DType::kFloat32 || data.w_type == DType::kFloat64;
  problem.x = data.x;
  problem.w = data.w;
  problem.y = data.y;
  problem.sample_weight = data.sample_weight;
  return problem;
}

void WriteValue(double value, DType type, void* array, std::int64_t i) {
  switch (type) {
    case DType::kFloat64:
      static_cast<double*>(array)[i] = value;
      return;
    case DType::kFloat32:
      static_cast<float*>(array)[i] = static_cast<float>(value);
      return;
    default:
      return;
  }
}

// Plan, kernel and arrays of one evaluation.
struct Evaluation {
  Problem problem;
  Plan plan;
  const Engine* engine;
  char* workspace;
  int stage = 0;

  void RunAlone() {
    engine->prepare(problem, plan, workspace);
    for (int s = 0; s < plan.stages; ++s) {
      for (int task = 0; task < TasksOf(plan, s); ++task) {
        engine->run(problem, plan, workspace, s, task, 0);
      }
    }
  }
};

double HalfSum(const double* loss, std::int64_t k) {
  double total = 0;
  for (std::int64_t t = 0; t < k; ++t) total += loss[t];
  return 0.5 * total;
}

void WriteLoss(const Kernels& kernels, double value, void* array, std::int64_t i) {
  if (IsHalf(kernels.w_type)) {
    const float rounded = static_cast<float>(value);
    kernels.narrow(&rounded, static_cast<std::uint16_t*>(array) + i, 1);
  } else {
    WriteValue(value, kernels.w_type, array, i);
  }
}

struct Layout {
  Plan plan;
  double* loss;
  void* w;     // compute type, or null where the caller's array serves
  void* grad;  // likewise
  void* velocity;
  char* kernel_workspace;
  std::int64_t bytes;
};

Layout LayOut(const Data& data, int threads, bool descent, const Kernels& kernels,
              void* workspace) {
  Layout layout = {};
  const bool half = IsHalf(data.w_type);
  const std::int64_t size = data.shape.weight_rows() * data.shape.k * ComputeSize(data);
  layout.plan = MakePlan(data, threads, descent, kernels);
  Arena arena(workspace);
  layout.loss = arena.Take<double>(std::max<std::int64_t>(data.shape.k, 1) * 8);
  if (half) layout.w = arena.Take<void>(size);
  if (half || descent) layout.grad = arena.Take<void>(size);
  if (descent) layout.velocity = arena.Take<void>(size);
  layout.kernel_workspace = arena.Take<char>(layout.plan.workspace_bytes);
  layout.bytes = arena.used();
  return layout;
}

// One evaluation on several threads.
void RunTogether(Evaluation& evaluation, const Threads& threads) {
  evaluation.engine->prepare(evaluation.problem, evaluation.plan, evaluation.workspace);
  Stages::Work work;
  work.self = &evaluation;
  work.run = [](void* self, int task, int worker) {
    const Evaluation& e = *static_cast<Evaluation*>(self);
    const IeeeFloats ieee;
    e.engine->run(e.problem, e.plan, e.workspace, e.stage, task, worker);
  };
  work.next = [](void* self) {
    Evaluation& e = *static_cast<Evaluation*>(self);
    return ++e.stage == e.plan.stages ? 0 : TasksOf(e.plan, e.stage);
  };
  Stages stages(work, evaluation.plan.tasks[0]);
  threads.run(threads.pool, evaluation.plan.workers, Stages::Body, &stages);
}

// The state of a descent; every member is written by one body at a time, between stages.
struct DescentLoop {
  Evaluation evaluation;
  const Kernels& kernels;
  const Descent& descent;
  void* w;  // compute type
  void* grad;
  void* velocity;
  std::int64_t size;
  std::int64_t step = 0;
  bool cancelled = false;

  void Pack() {
    if (evaluation.plan.route != Route::kLanePerRowPacked) return;
    kernels.pack(evaluation.problem, evaluation.plan, evaluation.workspace);
  }

  void Begin() {
    evaluation.stage = 0;
    evaluation.problem.grad = step < descent.num_steps ? grad : nullptr;
    evaluation.engine->prepare(evaluation.problem, evaluation.plan, evaluation.workspace);
  }

  // After an evaluation: records the loss, moves the weights. False at the end.
  bool Step() {
    const std::int64_t k = evaluation.problem.k;
    WriteLoss(kernels, HalfSum(evaluation.problem.loss, k), descent.losses, step);
    if (step == descent.num_steps) return false;
    const double rate = descent.rates[descent.num_rates == 1 ? 0 : step];
    if (kernels.x_type == DType::kFloat64) {
      Move<double>(rate);
    } else {
      Move<float>(rate);
    }
    ++step;
    cancelled = Cancelled();
    return !cancelled;
  }

  bool Cancelled() const {
    return descent.cancelled != nullptr && descent.cancelled(descent.cancelled_context);
  }

  // Every operation rounds in w's type, as the caller's own update would.
  template <class C>
  void Move(double rate) {
    C* const weights = static_cast<C*>(w);
    C* const v = static_cast<C*>(velocity);
    const C* const g = static_cast<const C*>(grad);
    const C r = static_cast<C>(rate), m = static_cast<C>(descent.momentum);
    if (m == C(0)) {  // 0·v would turn an infinite v into nan
      for (std::int64_t i = 0; i < size; ++i) weights[i] -= r * g[i];
      return;
    }
    for (std::int64_t i = 0; i < size; ++i) {
      v[i] = m * v[i] - r * g[i];
      weights[i] += v[i];
    }
  }

  void RunAlone() {
    Evaluation& e = evaluation;
    do {
      for (Begin(); e.stage < e.plan.stages; ++e.stage) {
        for (int i = 0; i < TasksOf(e.plan, e.stage); ++i) {
          e.engine->run(e.problem, e.plan, e.workspace, e.stage, i, 0);
        }
      }
    } while (Step());
  }

  void RunTogether(const Threads& threads) {
    Begin();
    Stages::Work work;
    work.self = this;
    work.run = [](void* self, int task, int worker) {
      const IeeeFloats ieee;
      const Evaluation& e = static_cast<DescentLoop*>(self)->evaluation;
      e.engine->run(e.problem, e.plan, e.workspace, e.stage, task, worker);
    };
    work.next = [](void* self) {
      DescentLoop& loop = *static_cast<DescentLoop*>(self);
      const IeeeFloats ieee;
      Evaluation& e = loop.evaluation;
      if (++e.stage == e.plan.stages) {
        if (!loop.Step()) return 0;
        loop.Begin();
      }
      return TasksOf(e.plan, e.stage);
    };
    Stages stages(work, evaluation.plan.tasks[0]);
    threads.run(threads.pool, evaluation.plan.workers, Stages::Body, &stages);
  }
};

bool Parallel(const Plan& plan, const Threads& threads) {
  return plan.workers > 1 && threads.run != nullptr;
}

}  // namespace

Status Explain(const Data& sizes, int threads, bool descent, const char* isa, PlanInfo* info) {
  if (Status status = ValidateSizes(sizes); !status.ok()) return status;
  const Kernels* kernels = nullptr;
  if (Status status = FindKernels(isa, sizes.x_type, sizes.w_type, &kernels); !status.ok()) {
    return status;
  }
  if (isa == nullptr) {
    if (Status status = ActiveIsa(&isa); !status.ok()) return status;
  }
  const Layout layout = LayOut(sizes, threads, descent, *kernels, nullptr);
  *info = {};
  info->isa = isa;
  for (const RouteInfo& route : Routes()) {
    if (route.route == layout.plan.route) info->route = route;
  }
  info->workers = layout.plan.workers;
  for (int stage = 0; stage < std::min(layout.plan.stages, 3); ++stage) {
    info->tasks = std::max<std::int64_t>(info->tasks, layout.plan.tasks[stage]);
  }
  info->tile_rows = layout.plan.tile_rows;
  info->workspace_bytes = layout.bytes;
  return Status();
}

namespace {

// An unknown instruction set needs none: the call itself says what is wrong.
std::int64_t Bytes(const Data& data, int threads, bool descent, const char* isa) {
  const Kernels* kernels = nullptr;
  if (!FindKernels(isa, data.x_type, data.w_type, &kernels).ok()) return 0;
  return LayOut(data, threads, descent, *kernels, nullptr).bytes;
}

}  // namespace

std::int64_t WorkspaceBytes(const Data& data, int threads, const char* isa) {
  return Bytes(data, threads, false, isa);
}

std::int64_t DescentWorkspaceBytes(const Data& data, int threads, const char* isa) {
  return Bytes(data, threads, true, isa);
}

Status ComputeLossGrad(const Data& data, const LossGrad& out, const Threads& threads,
                       void* workspace, std::int64_t workspace_bytes, const char* isa) {
  if (Status status = Validate(data); !status.ok()) return status;
  const Kernels* kernels = nullptr;
  if (Status status = FindKernels(isa, data.x_type, data.w_type, &kernels); !status.ok()) {
    return status;
  }
  const Layout layout = LayOut(data, threads.count, false, *kernels, workspace);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  const std::int64_t k = data.shape.k, size = data.shape.weight_rows() * k;
  const IeeeFloats ieee;

  Evaluation evaluation = {ProblemOf(data), layout.plan, &kernels->engine(layout.plan.route),
                           layout.kernel_workspace};
  Problem& problem = evaluation.problem;
  problem.loss = layout.loss;
  problem.grad = out.grad;
  if (layout.w != nullptr) {
    kernels->widen(data.w, layout.w, size);
    problem.w = layout.w;
    if (out.grad != nullptr) problem.grad = layout.grad;
  }
  if (k > 0) {
    if (Parallel(layout.plan, threads)) {
      RunTogether(evaluation, threads);
    } else {
      evaluation.RunAlone();
    }
  }
  if (out.loss != nullptr && out.loss_per_target) {
    for (std::int64_t t = 0; t < k; ++t) WriteLoss(*kernels, 0.5 * layout.loss[t], out.loss, t);
  } else if (out.loss != nullptr) {
    WriteLoss(*kernels, HalfSum(layout.loss, k), out.loss, 0);
  }
  if (problem.grad != out.grad) kernels->narrow(problem.grad, out.grad, size);
  return Status();
}

Status ComputeDescent(const Data& data, const Descent& descent, const Threads& threads,
                      void* workspace, std::int64_t workspace_bytes, const char* isa) {
  if (Status status = Validate(data, descent); !status.ok()) return status;
  const Kernels* kernels = nullptr;
  if (Status status = FindKernels(isa, data.x_type, data.w_type, &kernels); !status.ok()) {
    return status;
  }
  const Layout layout = LayOut(data, threads.count, true, *kernels, workspace);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  const std::int64_t k = data.shape.k, size = data.shape.weight_rows() * k;
  const IeeeFloats ieee;

  DescentLoop loop = {
      {ProblemOf(data), layout.plan, &kernels->engine(layout.plan.route), layout.kernel_workspace},
      *kernels,
      descent,
      layout.w != nullptr ? layout.w : descent.w,
      layout.grad,
      layout.velocity,
      size};
  const std::size_t bytes = static_cast<std::size_t>(size * ComputeSize(data));
  if (layout.w != nullptr) {
    kernels->widen(data.w, loop.w, size);
  } else if (bytes > 0) {
    std::memcpy(loop.w, data.w, bytes);
  }
  if (bytes > 0) std::memset(layout.velocity, 0, bytes);
  loop.evaluation.problem.w = loop.w;
  loop.evaluation.problem.loss = layout.loss;

  loop.cancelled = loop.Cancelled();
  if (k == 0) {
    for (std::int64_t t = 0; t <= descent.num_steps; ++t) {
      WriteLoss(*kernels, 0, descent.losses, t);
    }
  } else if (!loop.cancelled) {
    loop.Pack();
    if (Parallel(layout.plan, threads)) {
      loop.RunTogether(threads);
    } else {
      loop.RunAlone();
    }
  }
  if (loop.cancelled) {
    return {Status::Code::kCancelled, "cancelled before step " + std::to_string(loop.step)};
  }
  if (layout.w != nullptr) kernels->narrow(loop.w, descent.w, size);
  return Status();
}

}  // namespace cpu
}  // namespace linreg_ops
