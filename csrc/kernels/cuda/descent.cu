// Three ways to descend, by what the device and the shape allow. All of the fused kernel's passes
// in one launch, with a barrier of the whole grid after each; where the grid cannot be resident at
// once, the same pass and the same step as two launches, replayed from a CUDA graph, to the same
// bits; and for what the fused kernel does not hold, or several blocks share, the launches of
// single passes, from a graph too where all of them are this library's own.
#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/cuda/descent.cuh"
#include "kernels/cuda/descent.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/recorded_launches.h"
#include "kernels/cuda/single_pass.h"
#include "kernels/cuda/workspace.h"

namespace linreg_ops {
namespace cuda {
namespace {

// Every block repeats the whole update, which saves a grid barrier, while that costs a block no
// more than this many loads of partial sums in all: about what the barrier costs.
constexpr std::int64_t kRepeatedUpdateLoads = 32 * kThreads;
// A descent's launch ends after so many steps, for the caller to cancel and for other work's sake.
constexpr std::int64_t kStepsPerLaunch = 4096;
// Guesses, not measured: one call of the driver for 32 launches, or for as many more as a chunked
// step has, but no graph that takes long to make.
constexpr std::int64_t kStepsPerGraph = 16;
constexpr std::int64_t kLaunchesPerGraph = 512;

// Belongs to the kernels that take a step from a finished gradient.
std::int64_t StepBlocks(std::int64_t count, const Device& device) {
  return std::max<std::int64_t>(
      1, std::min(CeilDiv(count, kThreads), 4 * std::int64_t{device.multiprocessors}));
}

// Whether every pass is a single pass's launches: what the fused kernel does not hold, and rows
// that several blocks share.
bool IsOfSinglePasses(const FusedPlan& plan) { return plan.path == Path::kChunks || plan.team > 1; }

// What the blocks of a descent in one launch keep in their shared memory from pass to pass, behind
// what a single pass has there; X rather than the ring that would bring it again.
struct KeptOnChip {
  bool state = false, ring = false;
  std::int64_t state_offset = 0, x_offset = 0, ring_offset = 0;
  std::int64_t shared_bytes;  // of the block's, with all of it

  KeptOnChip(const Data& data, const FusedPlan& plan, const Device& device)
      : shared_bytes(plan.ring ? plan.ring_offset : plan.shared_bytes) {
    const std::int64_t count = data.shape.weight_rows() * data.shape.k;
    const std::int64_t state_bytes =
        (count + data.shape.k) * 8 +
        2 * count * static_cast<std::int64_t>(SizeOf(AccumulatorType(data.x_type)));
    const auto keep = [&](std::int64_t bytes, std::int64_t* offset) {
      const std::int64_t at = AlignUp(shared_bytes, 16);
      if (at + bytes > device.shared_per_block) return false;
      *offset = at;
      shared_bytes = at + bytes;
      return true;
    };
    state = (plan.blocks == 1 || plan.blocks * count <= kRepeatedUpdateLoads) &&
            keep(state_bytes, &state_offset);
    if (!plan.narrow && !keep(KeptBytes(data, plan), &x_offset) && plan.ring) {
      ring = keep(plan.shared_bytes - plan.ring_offset, &ring_offset);
    }
  }
};

struct DescentParts {
  FusedPlan plan;
  std::int64_t count;  // of W's elements
  KeptOnChip kept;
  void* w_state;
  void* v_state;
  std::int64_t* done = nullptr;  // passes or steps, by each block of the step's kernel
  double* rates;
  // For the fused kernel.
  unsigned* barrier = nullptr;
  double* partials = nullptr;
  // For single passes.
  void* loss = nullptr;
  void* grad = nullptr;
  void* loss_grad = nullptr;  // a single pass's workspace
  std::int64_t bytes;

  DescentParts(const Data& data, const Descent& descent, const Device& device, bool gemm,
               void* workspace)
      : plan(PlanFused(data, device)),
        count(data.shape.weight_rows() * data.shape.k),
        kept(data, plan, device) {
    const std::int64_t state_bytes =
        count * static_cast<std::int64_t>(SizeOf(AccumulatorType(data.x_type)));
    WorkspaceParts parts(workspace);
    w_state = parts.Take(state_bytes);
    v_state = parts.Take(state_bytes);
    rates = parts.Take<double>(descent.num_rates > 1 ? descent.num_rates * 8 : 0);
    if (IsOfSinglePasses(plan)) {
      done = parts.Take<std::int64_t>(StepBlocks(count, device) * 8);
      loss = parts.Take(8);
      grad = parts.Take(state_bytes);
      loss_grad = parts.Take(LossGradBytes(data, device, gemm));
    } else {
      barrier = parts.Take<unsigned>(sizeof(unsigned));
      done = parts.Take<std::int64_t>(plan.blocks * 8);
      partials = parts.Take<double>(PartialsBytes(data, plan, 2));
    }
    bytes = parts.bytes();
  }
};

struct Call {
  const Data& data;
  const Descent& descent;
  const Device& device;
  cudaStream_t stream;
  const DescentParts& parts;

  bool cancelled() const {
    return descent.cancelled != nullptr && descent.cancelled(descent.cancelled_context);
  }
};

Status Cancelled(std::int64_t step) {
  return {Status::Code::kCancelled, "cancelled before step " + std::to_string(step)};
}

// The rates may be freed when this returns.
Status StoreRates(const Call& call) {
  const Descent& descent = call.descent;
  if (descent.num_rates <= 1) return Status();
  for (std::int64_t i = 0; i < descent.num_rates; i += RateChunk::kSize) {
    RateChunk chunk = {};
    const auto size =
        static_cast<int>(std::min<std::int64_t>(RateChunk::kSize, descent.num_rates - i));
    std::copy(descent.rates + i, descent.rates + i + size, chunk.rate);
    Status status = Launch({"the schedule's copy", dim3(1), kThreads, 0, false, call.stream},
                           StoreRatesKernel<void>, chunk, call.parts.rates + i, size);
    if (!status.ok()) return status;
  }
  return Status();
}

// The rate of every step, where there is no schedule.
double FirstRate(const Descent& descent) { return descent.num_rates > 0 ? descent.rates[0] : 0.0; }

// `kernel` and `wide`: of float32 and of float64 state.
Status LaunchStepKernel(const Call& call, void (*kernel)(StepArgs), void (*wide)(StepArgs),
                        const StepArgs& args, cudaStream_t stream) {
  const LaunchConfig config = {"the descent's step kernel",
                               dim3(static_cast<unsigned>(StepBlocks(args.count, call.device))),
                               kThreads,
                               0,
                               false,
                               stream};
  return Launch(config, IsWide(call.data.x_type) ? wide : kernel, args);
}

// For the first state on every path, and for the chunk path's steps.
StepArgs MakeStepArgs(const Call& call) {
  StepArgs args;
  args.w_in = call.data.w;
  args.w_out = call.descent.w;
  args.type = call.data.w_type;
  args.count = call.parts.count;
  args.num_steps = call.descent.num_steps;
  args.momentum = call.descent.momentum;
  args.rate = FirstRate(call.descent);
  args.rates = call.descent.num_rates > 1 ? call.parts.rates : nullptr;
  args.loss = call.parts.loss;
  args.grad = call.parts.grad;
  args.losses = call.descent.losses;
  args.w_state = call.parts.w_state;
  args.v_state = call.parts.v_state;
  args.steps_done = call.parts.done;
  return args;
}

// From the caller's weights to the first state, with no pass or step done by any of `blocks`.
Status Begin(const Call& call, std::int64_t blocks) {
  Status status = LaunchStepKernel(call, BeginKernel<float>, BeginKernel<double>,
                                   MakeStepArgs(call), call.stream);
  if (!status.ok()) return status;
  return CheckCuda(
      cudaMemsetAsync(call.parts.done, 0, static_cast<std::size_t>(blocks) * sizeof(std::int64_t),
                      call.stream),
      "clearing the steps' counters");
}

// Calls enqueue(stream), which launches one step, for every step: most of them from a CUDA graph of
// `per_graph` steps. The first goes ahead, so that the kernels are loaded before a thread records
// them: loading may do what a recording thread must not.
template <typename Enqueue>
Status EnqueueSteps(const Call& call, std::int64_t per_graph, const Enqueue& enqueue) {
  const std::int64_t steps = call.descent.num_steps;
  Status status;
  std::int64_t done = 0;
  const auto one_by_one_until = [&](std::int64_t end) {
    for (; status.ok() && done < end; ++done) {
      status = call.cancelled() ? Cancelled(done) : enqueue(call.stream);
    }
  };
  RecordedLaunches graph;
  if (per_graph > 0 && steps > 2 * per_graph && RecordedLaunches::CanReplayOn(call.stream)) {
    one_by_one_until(1);
    if (!status.ok()) return status;
    status = graph.Record([&](cudaStream_t stream) {
      Status recorded;
      for (std::int64_t i = 0; i < per_graph && recorded.ok(); ++i) recorded = enqueue(stream);
      return recorded;
    });
    for (; status.ok() && done + per_graph <= steps; done += per_graph) {
      status = call.cancelled() ? Cancelled(done) : graph.Replay(call.stream);
    }
  }
  one_by_one_until(steps);
  return status;
}

// The fused kernel's arguments, with everything but the passes of a launch.
Status MakeArgs(const Call& call, FusedArgs* args) {
  const DescentParts& parts = call.parts;
  *args = MakeFusedArgs(call.data, call.data.w_type, parts.plan, parts.partials);
  args->finish.loss_type = args->finish.grad_type = call.data.w_type;
  DescentArgs& steps = args->descent;
  steps.num_steps = call.descent.num_steps;
  steps.momentum = call.descent.momentum;
  steps.rate = FirstRate(call.descent);
  steps.w_state = parts.w_state;
  steps.v_state = parts.v_state;
  steps.every_block_updates = parts.kept.state;
  steps.state_offset = parts.kept.state_offset;
  steps.barrier = parts.barrier;
  steps.passes_done = parts.done;
  steps.w_out = call.descent.w;
  steps.losses = call.descent.losses;
  steps.rates = call.descent.num_rates > 1 ? parts.rates : nullptr;
  return StoreRates(call);
}

// kUnsupported if the grid cannot be resident at once.
Status DescendInOneLaunch(const Call& call, FusedArgs args) {
  const bool cooperative = call.parts.plan.blocks > 1;
  if (cooperative && !call.device.cooperative_launch) {
    return {Status::Code::kUnsupported, "the device has no cooperative launches"};
  }
  DescentArgs& steps = args.descent;
  steps.enabled = true;
  steps.kept_x_offset = call.parts.kept.x_offset;
  args.plan.ring = call.parts.kept.ring;
  args.plan.ring_offset = call.parts.kept.ring_offset;
  args.plan.shared_bytes = call.parts.kept.shared_bytes;
  for (std::int64_t first = 0; first <= steps.num_steps; first += kStepsPerLaunch) {
    if (call.cancelled()) return Cancelled(first);
    steps.first_pass = first;
    steps.last_pass = std::min(first + kStepsPerLaunch, steps.num_steps + 1);
    if (cooperative || !steps.every_block_updates) {
      Status status = CheckCuda(cudaMemsetAsync(steps.barrier, 0, sizeof(unsigned), call.stream),
                                "clearing the grid barrier");
      if (!status.ok()) return status;
    }
    Status status = LaunchFusedFor(call.data.x_type, args, cooperative, call.stream);
    if (!status.ok()) return status;
  }
  return Status();
}

// One pass over X and the step from it.
Status LaunchPassAndStep(const Call& call, const FusedArgs& args, cudaStream_t stream) {
  Status status = LaunchFusedFor(call.data.x_type, args, false, stream);
  if (!status.ok()) return status;
  // As many blocks as share the update in one launch.
  const int blocks = args.descent.every_block_updates ? 1 : args.plan.blocks;
  const LaunchConfig config = {"the descent's step kernel",
                               dim3(static_cast<unsigned>(blocks)),
                               args.plan.threads,  // as many, so that they add alike
                               kReduceBytes + kMostTargets * 8,
                               false,
                               stream};
  return IsWide(call.data.x_type) ? Launch(config, StepFromPartialsKernel<double>, args)
                                  : Launch(config, StepFromPartialsKernel<float>, args);
}

Status DescendLaunchByLaunch(const Call& call, FusedArgs args) {
  Status status = Begin(call, args.plan.blocks);
  if (!status.ok()) return status;
  args.w = args.descent.w_state;
  args.w_type = AccumulatorType(call.data.x_type);
  args.finish.grad_out = args.descent.w_state;  // asks for the gradient's partial sums
  status = EnqueueSteps(call, kStepsPerGraph,
                        [&](cudaStream_t stream) { return LaunchPassAndStep(call, args, stream); });
  args.finish.grad_out = nullptr;
  return status.ok() ? LaunchPassAndStep(call, args, call.stream) : status;
}

// How many chunked steps a graph takes; 0: none. The caller's products are not recorded: TensorFlow
// has them enqueued on its own stream, where other threads enqueue theirs meanwhile, and a graph
// would keep the address of the workspace of cuBLAS's handle, which those threads share.
std::int64_t ChunkedStepsPerGraph(const Call& call, const Gemm& gemm) {
  const Shape& shape = call.data.shape;
  if (gemm.run != nullptr && SuitsGemm(shape)) return 0;
  constexpr std::int64_t kLaunchesPerChunk = 3, kOthers = 2;
  const std::int64_t chunks = CeilDiv(shape.n, PlanChunks(call.data, call.device, false).rows);
  const std::int64_t launches = kLaunchesPerChunk * std::max<std::int64_t>(1, chunks) + kOthers;
  return std::min(kStepsPerGraph, kLaunchesPerGraph / launches);
}

Status DescendBySinglePasses(const Call& call, const Gemm& gemm) {
  Status status = StoreRates(call);
  if (status.ok()) status = Begin(call, StepBlocks(call.parts.count, call.device));
  if (!status.ok()) return status;
  const StepArgs step = MakeStepArgs(call);
  Data at_w = call.data;
  at_w.w = call.parts.w_state;
  FinishArgs outputs;
  outputs.loss_type = call.data.w_type;
  outputs.grad_type = AccumulatorType(call.data.x_type);
  outputs.loss_out = call.parts.loss;
  outputs.grad_out = call.parts.grad;
  const auto pass = [&](cudaStream_t stream) {
    return LaunchLossGrad(at_w, outputs.grad_type, outputs, call.device, stream,
                          call.parts.loss_grad, gemm);
  };
  status = EnqueueSteps(call, ChunkedStepsPerGraph(call, gemm), [&](cudaStream_t stream) {
    const Status made = pass(stream);
    return made.ok() ? LaunchStepKernel(call, StepKernel<float>, StepKernel<double>, step, stream)
                     : made;
  });
  outputs.loss_out = static_cast<char*>(call.descent.losses) +
                     call.descent.num_steps * static_cast<std::int64_t>(SizeOf(call.data.w_type));
  outputs.grad_out = nullptr;
  return status.ok() ? pass(call.stream) : status;
}

}  // namespace

std::int64_t DescentBytes(const Data& data, const Descent& descent, const Device& device,
                          bool gemm) {
  return DescentParts(data, descent, device, gemm, nullptr).bytes;
}

Status LaunchDescent(const Data& data, const Descent& descent, const Device& device,
                     cudaStream_t stream, void* workspace, const Gemm& gemm) {
  const DescentParts parts(data, descent, device, gemm.run != nullptr, workspace);
  const Call call = {data, descent, device, stream, parts};
  if (IsOfSinglePasses(parts.plan)) return DescendBySinglePasses(call, gemm);
  FusedArgs args;
  Status status = MakeArgs(call, &args);
  if (!status.ok()) return status;
  status = DescendInOneLaunch(call, args);
  return status.code() == Status::Code::kUnsupported ? DescendLaunchByLaunch(call, args) : status;
}

}  // namespace cuda
}  // namespace linreg_ops
