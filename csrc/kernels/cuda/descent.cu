// Three ways to descend, by what the device and the shape allow. All of the fused kernel's passes
// in one launch, with a barrier of the whole grid after each; where the grid cannot be resident at
// once, the same pass and the same step as two launches, replayed from a CUDA graph, to the same
// bits; and for what the fused kernel does not hold, the chunk path's launches, step by step: their
// products may be the caller's, and beside them a launch costs little.
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

// Every block repeats the whole update, which saves a grid barrier, while that costs a thread no
// more than this many loads of partial sums in all: about what the barrier costs.
constexpr std::int64_t kRepeatedUpdateLoads = 32 * kThreads;
// A descent's launch ends after so many steps, for the caller to cancel and for other work's sake.
constexpr std::int64_t kStepsPerLaunch = 4096;
// A guess, not measured: one call of the driver for 32 launches.
constexpr std::int64_t kStepsPerGraph = 16;

struct DescentParts {
  FusedPlan plan;
  std::int64_t count;        // of W's elements
  bool every_block_updates;  // in one launch
  void* w_state;
  void* v_state;
  // Of the fused kernel.
  unsigned* barrier = nullptr;
  std::int64_t* passes_done = nullptr;
  double* partials = nullptr;
  double* rates = nullptr;
  // Of the chunk path.
  void* grad = nullptr;
  void* loss_grad = nullptr;  // a single pass's workspace
  std::int64_t bytes;

  DescentParts(const Data& data, const Descent& descent, const Device& device, void* workspace)
      : plan(PlanFused(data, device, Purpose::kDescent)),
        count(data.shape.weight_rows() * data.shape.k),
        every_block_updates(plan.blocks == 1 || plan.blocks * count <= kRepeatedUpdateLoads) {
    const std::int64_t state_bytes =
        count * static_cast<std::int64_t>(SizeOf(AccumulatorType(data.x_type)));
    WorkspaceParts parts(workspace);
    w_state = parts.Take(state_bytes);
    if (plan.path == Path::kChunks) {
      v_state = parts.Take(state_bytes);
      grad = parts.Take(state_bytes);
      loss_grad = parts.Take(LossGradBytes(data, device));
    } else {
      v_state = parts.Take(state_bytes * (every_block_updates ? plan.blocks : 1));
      barrier = parts.Take<unsigned>(sizeof(unsigned));
      passes_done = parts.Take<std::int64_t>(plan.blocks * 8);
      partials = parts.Take<double>(PartialsBytes(data, plan, 2));
      rates = parts.Take<double>(descent.num_rates > 1 ? descent.num_rates * 8 : 0);
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

Status LaunchStep(const Call& call, const StepArgs& args) {
  const std::int64_t blocks =
      std::min(CeilDiv(args.count, kThreads), 4 * std::int64_t{call.device.multiprocessors});
  const LaunchConfig config = {"the descent's step kernel",
                               dim3(static_cast<unsigned>(std::max<std::int64_t>(1, blocks))),
                               kThreads,
                               0,
                               false,
                               call.stream};
  return IsWide(call.data.x_type) ? Launch(config, StepKernel<double>, args)
                                  : Launch(config, StepKernel<float>, args);
}

// From the caller's weights to the state.
StepArgs FirstState(const Call& call) {
  StepArgs args;
  args.w_in = call.data.w;
  args.w_out = call.descent.w;
  args.type = call.data.w_type;
  args.count = call.parts.count;
  args.begin = true;
  args.momentum = call.descent.momentum;
  args.w_state = call.parts.w_state;
  args.v_state = call.parts.v_state;
  return args;
}

// The fused kernel's arguments, with everything but the passes of a launch.
Status MakeArgs(const Call& call, FusedArgs* args) {
  const DescentParts& parts = call.parts;
  *args = MakeFusedArgs(call.data, call.data.w_type, parts.plan, call.device, parts.partials);
  args->finish.loss_type = args->finish.grad_type = call.data.w_type;
  DescentArgs& steps = args->descent;
  steps.num_steps = call.descent.num_steps;
  steps.momentum = call.descent.momentum;
  steps.rate = call.descent.num_rates > 0 ? call.descent.rates[0] : 0.0;
  steps.w_state = parts.w_state;
  steps.v_state = parts.v_state;
  steps.every_block_updates = parts.every_block_updates;
  steps.barrier = parts.barrier;
  steps.passes_done = parts.passes_done;
  steps.w_out = call.descent.w;
  steps.losses = call.descent.losses;
  if (call.descent.num_rates <= 1) return Status();
  steps.rates = parts.rates;
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
  for (std::int64_t first = 0; first <= steps.num_steps; first += kStepsPerLaunch) {
    if (call.cancelled()) return Cancelled(first);
    steps.first_pass = first;
    steps.last_pass = std::min(first + kStepsPerLaunch, steps.num_steps + 1);
    if (cooperative) {
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
                               kThreads,
                               kReduceBytes,
                               false,
                               stream};
  return IsWide(call.data.x_type) ? Launch(config, StepFromPartialsKernel<double>, args)
                                  : Launch(config, StepFromPartialsKernel<float>, args);
}

Status DescendLaunchByLaunch(const Call& call, FusedArgs args) {
  Status status = LaunchStep(call, FirstState(call));
  if (!status.ok()) return status;
  status =
      CheckCuda(cudaMemsetAsync(args.descent.passes_done, 0,
                                static_cast<std::size_t>(args.plan.blocks) * sizeof(std::int64_t),
                                call.stream),
                "clearing the passes' counters");
  args.w = args.descent.w_state;
  args.w_type = AccumulatorType(call.data.x_type);
  args.finish.grad_out = args.descent.w_state;  // asks for the gradient's partial sums

  const std::int64_t steps = args.descent.num_steps;
  std::int64_t done = 0;
  RecordedLaunches graph;
  if (status.ok() && steps >= 2 * kStepsPerGraph && RecordedLaunches::CanReplayOn(call.stream)) {
    status = graph.Record([&](cudaStream_t stream) {
      Status recorded;
      for (std::int64_t i = 0; i < kStepsPerGraph && recorded.ok(); ++i) {
        recorded = LaunchPassAndStep(call, args, stream);
      }
      return recorded;
    });
    for (; status.ok() && done + kStepsPerGraph <= steps; done += kStepsPerGraph) {
      if (call.cancelled()) return Cancelled(done);
      status = graph.Replay(call.stream);
    }
  }
  for (; status.ok() && done < steps; ++done) {
    if (call.cancelled()) return Cancelled(done);
    status = LaunchPassAndStep(call, args, call.stream);
  }
  args.finish.grad_out = nullptr;
  return status.ok() ? LaunchPassAndStep(call, args, call.stream) : status;
}

Status DescendInChunks(const Call& call, const Gemm& gemm) {
  const Descent& descent = call.descent;
  StepArgs step = FirstState(call);
  step.end = descent.num_steps == 0;
  Status status = LaunchStep(call, step);
  step.begin = false;
  step.grad = call.parts.grad;
  Data at_w = call.data;
  at_w.w = call.parts.w_state;
  FinishArgs outputs;
  outputs.loss_type = call.data.w_type;
  outputs.grad_type = AccumulatorType(call.data.x_type);
  for (std::int64_t t = 0; t <= descent.num_steps && status.ok(); ++t) {
    if (call.cancelled()) return Cancelled(t);
    outputs.loss_out = static_cast<char*>(descent.losses) +
                       t * static_cast<std::int64_t>(SizeOf(call.data.w_type));
    outputs.grad_out = t < descent.num_steps ? call.parts.grad : nullptr;
    status = LaunchLossGrad(at_w, outputs.grad_type, outputs, call.device, call.stream,
                            call.parts.loss_grad, gemm);
    if (!status.ok() || t == descent.num_steps) break;
    step.rate = descent.rates[descent.num_rates == 1 ? 0 : t];
    step.end = t + 1 == descent.num_steps;
    status = LaunchStep(call, step);
  }
  return status;
}

}  // namespace

std::int64_t DescentBytes(const Data& data, const Descent& descent, const Device& device) {
  return DescentParts(data, descent, device, nullptr).bytes;
}

Status LaunchDescent(const Data& data, const Descent& descent, const Device& device,
                     cudaStream_t stream, void* workspace, const Gemm& gemm) {
  const DescentParts parts(data, descent, device, workspace);
  const Call call = {data, descent, device, stream, parts};
  if (parts.plan.path == Path::kChunks) return DescendInChunks(call, gemm);
  FusedArgs args;
  Status status = MakeArgs(call, &args);
  if (!status.ok()) return status;
  status = DescendInOneLaunch(call, args);
  return status.code() == Status::Code::kUnsupported ? DescendLaunchByLaunch(call, args) : status;
}

}  // namespace cuda
}  // namespace linreg_ops
