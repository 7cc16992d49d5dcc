// The drivers: one evaluation, and a whole descent, out of the kernels' stages.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/stages.h"
#include "kernels/sizes.h"

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

 private:
  const Cancellable caller_;
  std::atomic<bool> seen_{false};
};

// A pass over so many products is long enough, some milliseconds, to ask after each of its tasks.
constexpr std::int64_t kLongPass = 1 << 24;

// Plan, kernel and arrays of one evaluation.
struct Evaluation {
  Problem problem;
  Plan plan;
  const Engine* engine;
  char* workspace;
  Cancellation& cancellation;
  bool long_pass;
  int stage = 0;

  void Prepare() { engine->prepare(problem, plan, workspace); }

  void Run(int task, int worker) const {
    if (cancellation.seen()) return;
    engine->run(problem, plan, workspace, stage, task, worker);
    if (long_pass) cancellation.Ask();
  }

  // Goes to the next stage, and returns the number of its tasks; 0 at the end.
  int Next() {
    ++stage;
    return stage == plan.stages || cancellation.seen() ? 0 : TasksOf(plan, stage);
  }

  void RunAlone() {
    Prepare();
    for (int tasks = TasksOf(plan, 0); tasks > 0; tasks = Next()) {
      for (int task = 0; task < tasks; ++task) Run(task, 0);
    }
  }
};

// A kernel for n equal terms: X·W is the intercept in every row.
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
void PrepareNothing(const Problem&, const Plan&, char*) {}
constexpr Engine kEqualTermsFloat = {PrepareNothing, SumEqualTerms<float>};
constexpr Engine kEqualTermsDouble = {PrepareNothing, SumEqualTerms<double>};

Plan PlanOf(const Data& data, int threads, bool descent, const Kernels& kernels) {
  if (!EqualTerms(data)) return MakePlan(data, threads, descent, kernels);
  Plan plan = {};
  plan.stages = plan.tasks[0] = plan.workers = 1;
  return plan;
}

const Engine* EngineOf(const Data& data, const Plan& plan, const Kernels& kernels) {
  if (EqualTerms(data)) {
    return data.x_type == DType::kFloat64 ? &kEqualTermsDouble : &kEqualTermsFloat;
  }
  return &kernels.engine(plan.route);
}

Evaluation EvaluationOf(const Data& data, const Plan& plan, const Kernels& kernels, char* workspace,
                        Cancellation& cancellation) {
  const Shape& shape = data.shape;
  const bool long_pass = SaturatingProduct({shape.n, shape.weight_rows(), shape.k}) > kLongPass;
  Problem problem = ProblemOf(data);
  if (long_pass) {
    problem.cancelled = [](void* self) { return static_cast<Cancellation*>(self)->Ask(); };
    problem.cancelled_context = &cancellation;
  }
  return {problem, plan, EngineOf(data, plan, kernels), workspace, cancellation, long_pass};
}

Status Cancelled(std::int64_t step) {
  return {Status::Code::kCancelled, "cancelled before step " + std::to_string(step)};
}

void SetZero(void* array, std::size_t bytes) {
  if (array != nullptr && bytes > 0) std::memset(array, 0, bytes);
}

double HalfSum(const double* loss, std::int64_t k) {
  double total = 0;
  for (std::int64_t t = 0; t < k; ++t) total += loss[t];
  return 0.5 * total;
}

void WriteRounded(const Kernels& kernels, double value, void* array, std::int64_t i) {
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
  if (NothingToSum(data)) return layout;
  const bool half = IsHalf(data.w_type);
  const std::int64_t size = data.shape.weight_rows() * data.shape.k * ComputeSize(data);
  layout.plan = PlanOf(data, threads, descent, kernels);
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
  evaluation.Prepare();
  Stages::Work work;
  work.self = &evaluation;
  work.run = [](void* self, int task, int worker) {
    const IeeeFloats ieee;
    static_cast<Evaluation*>(self)->Run(task, worker);
  };
  work.next = [](void* self) { return static_cast<Evaluation*>(self)->Next(); };
  Stages stages(work, evaluation.plan.tasks[0]);
  threads.run(threads.pool, evaluation.plan.workers, Stages::Body, &stages);
}

// Where there are no weights to move, or no loss but 0: every loss is the same. False, for the end.
bool FillLosses(const Kernels& kernels, const Descent& descent, double loss,
                Cancellation& cancellation) {
  constexpr std::int64_t kOften = 1 << 20;  // a millisecond
  for (std::int64_t t = 0; t <= descent.num_steps; ++t) {
    if (t % kOften == kOften - 1 && cancellation.Ask()) break;
    WriteRounded(kernels, loss, descent.losses, t);
  }
  return false;
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

  void Pack() {
    if (evaluation.plan.route != Route::kLanePerRowPacked) return;
    kernels.pack(evaluation.problem, evaluation.plan, evaluation.workspace);
  }

  void Begin() {
    evaluation.stage = 0;
    evaluation.problem.grad = step < descent.num_steps ? grad : nullptr;
    evaluation.Prepare();
  }

  // After an evaluation: records the loss, moves the weights. False at the end.
  bool Step() {
    if (evaluation.cancellation.seen()) return false;
    const double loss = HalfSum(evaluation.problem.loss, evaluation.problem.k);
    WriteRounded(kernels, loss, descent.losses, step);
    if (step == descent.num_steps) return false;
    if (size == 0) return FillLosses(kernels, descent, loss, evaluation.cancellation);
    const double rate = descent.rates[descent.num_rates == 1 ? 0 : step];
    if (kernels.x_type == DType::kFloat64) {
      Move<double>(rate);
    } else {
      Move<float>(rate);
    }
    ++step;
    return !evaluation.cancellation.Ask();
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
      Begin();
      for (int tasks = TasksOf(e.plan, 0); tasks > 0; tasks = e.Next()) {
        for (int i = 0; i < tasks; ++i) e.Run(i, 0);
      }
    } while (Step());
  }

  void RunTogether(const Threads& threads) {
    Begin();
    Stages::Work work;
    work.self = this;
    work.run = [](void* self, int task, int worker) {
      const IeeeFloats ieee;
      static_cast<DescentLoop*>(self)->evaluation.Run(task, worker);
    };
    work.next = [](void* self) {
      DescentLoop& loop = *static_cast<DescentLoop*>(self);
      const IeeeFloats ieee;
      if (const int tasks = loop.evaluation.Next(); tasks > 0) return tasks;
      if (!loop.Step()) return 0;
      loop.Begin();
      return TasksOf(loop.evaluation.plan, 0);
    };
    Stages stages(work, evaluation.plan.tasks[0]);
    threads.run(threads.pool, evaluation.plan.workers, Stages::Body, &stages);
  }
};

// All losses and gradients are 0. A rate or momentum that is not finite makes NaN of 0 as of any
// other gradient.
Status DescendNowhere(const Kernels& kernels, const Data& data, const Descent& descent,
                      Cancellation& cancellation) {
  FillLosses(kernels, descent, 0, cancellation);
  const std::int64_t size = data.shape.weight_rows() * data.shape.k;
  const auto finite = [&data](double value) {
    return std::isfinite(ComputeSize(data) == 8 ? value : static_cast<float>(value));
  };
  bool moved = descent.num_steps > 0 && !finite(descent.momentum);
  const std::int64_t used = descent.num_steps > 0 && size > 0 ? descent.num_rates : 0;
  for (std::int64_t t = 0; t < used && !moved; ++t) moved = !finite(descent.rates[t]);
  for (std::int64_t i = 0; moved && i < size; ++i) {
    WriteRounded(kernels, std::numeric_limits<double>::quiet_NaN(), descent.w, i);
  }
  if (!moved && size > 0) {
    std::memcpy(descent.w, data.w, static_cast<std::size_t>(size) * SizeOf(data.w_type));
  }
  return cancellation.seen() ? Cancelled(0) : Status();
}

bool Parallel(const Plan& plan, const Threads& threads) {
  return plan.workers > 1 && threads.run != nullptr;
}

// An unknown instruction set needs none: the call itself says what is wrong.
std::int64_t Bytes(const Data& data, int threads, bool descent, const char* isa) {
  const Kernels* kernels = nullptr;
  if (!FindKernels(isa, data.x_type, data.w_type, &kernels).ok()) return 0;
  return LayOut(data, threads, descent, *kernels, nullptr).bytes;
}

}  // namespace

Status Explain(const Data& sizes, int threads, bool descent, const char* isa, PlanInfo* info) {
  if (Status status = ValidateTypes(sizes.x_type, sizes.w_type); !status.ok()) return status;
  if (Status status = ValidateSizes(sizes.shape); !status.ok()) return status;
  const Kernels* kernels = nullptr;
  if (Status status = FindKernels(isa, sizes.x_type, sizes.w_type, &kernels); !status.ok()) {
    return status;
  }
  if (isa == nullptr) {
    if (Status status = ActiveIsa(&isa); !status.ok()) return status;
  }
  Data data = sizes;
  data.y = &data;  // there is one; it is not read
  *info = {};
  info->isa = isa;
  info->route = {Route::kPlain, "none", "n = 0 or k = 0", "sums over nothing are 0"};
  if (NothingToSum(data)) return Status();
  const Layout layout = LayOut(data, threads, descent, *kernels, nullptr);
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
  Cancellation cancellation({out.cancelled, out.cancelled_context});
  if (cancellation.Ask()) return Cancelled(0);
  const std::int64_t k = data.shape.k, size = data.shape.weight_rows() * k;
  if (NothingToSum(data)) {
    const std::size_t width = SizeOf(data.w_type);
    SetZero(out.loss, (out.loss_per_target ? k : 1) * width);
    SetZero(out.grad, size * width);
    return Status();
  }
  const Layout layout = LayOut(data, threads.count, false, *kernels, workspace);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  const IeeeFloats ieee;

  Evaluation evaluation =
      EvaluationOf(data, layout.plan, *kernels, layout.kernel_workspace, cancellation);
  Problem& problem = evaluation.problem;
  problem.loss = layout.loss;
  problem.grad = out.grad;
  if (layout.w != nullptr) {
    kernels->widen(data.w, layout.w, size);
    problem.w = layout.w;
    if (out.grad != nullptr) problem.grad = layout.grad;
  }
  if (Parallel(layout.plan, threads)) {
    RunTogether(evaluation, threads);
  } else {
    evaluation.RunAlone();
  }
  if (cancellation.seen()) return Cancelled(0);
  if (out.loss != nullptr && out.loss_per_target) {
    for (std::int64_t t = 0; t < k; ++t) WriteRounded(*kernels, 0.5 * layout.loss[t], out.loss, t);
  } else if (out.loss != nullptr) {
    WriteRounded(*kernels, HalfSum(layout.loss, k), out.loss, 0);
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
  Cancellation cancellation({descent.cancelled, descent.cancelled_context});
  if (cancellation.Ask()) return Cancelled(0);
  if (NothingToSum(data)) return DescendNowhere(*kernels, data, descent, cancellation);
  const Layout layout = LayOut(data, threads.count, true, *kernels, workspace);
  if (Status s = CheckWorkspace(workspace, workspace_bytes, layout.bytes); !s.ok()) return s;
  const std::int64_t size = data.shape.weight_rows() * data.shape.k;
  const IeeeFloats ieee;

  DescentLoop loop = {
      EvaluationOf(data, layout.plan, *kernels, layout.kernel_workspace, cancellation),
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
  SetZero(layout.velocity, bytes);
  loop.evaluation.problem.w = loop.w;
  loop.evaluation.problem.loss = layout.loss;
  loop.Pack();
  if (Parallel(layout.plan, threads)) {
    loop.RunTogether(threads);
  } else {
    loop.RunAlone();
  }
  if (cancellation.seen()) return Cancelled(loop.step);
  if (layout.w != nullptr) kernels->narrow(loop.w, descent.w, size);
  return Status();
}

}  // namespace cpu
}  // namespace linreg_ops
