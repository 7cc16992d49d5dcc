// The CUDA half of the kernel API: validates, plans, divides the workspace, launches.
#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/cuda/chunked.cuh"
#include "kernels/cuda/chunked.h"
#include "kernels/cuda/fused.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/workspace.h"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {
namespace {

// Every block repeats the whole update, which saves a grid barrier, while that costs a thread no
// more than this many loads of partial sums in all: about what the barrier costs.
constexpr std::int64_t kRepeatedUpdateLoads = 32 * kThreads;
// A descent's launch ends after so many steps, for the caller to cancel and for other work's sake.
constexpr std::int64_t kStepsPerLaunch = 4096;

DType AccumulatorType(DType type) { return IsWide(type) ? DType::kFloat64 : DType::kFloat32; }

std::int64_t AccumulatorSize(const Data& data) {
  return static_cast<std::int64_t>(SizeOf(AccumulatorType(data.x_type)));
}

std::int64_t WeightCount(const Shape& shape) { return shape.weight_rows() * shape.k; }

std::int64_t PartialsBytes(const Data& data, const FusedPlan& plan, int sets) {
  return sets * plan.blocks * (WeightCount(data.shape) + data.shape.k) * 8;
}

RowArray Rows(const void* array, std::int64_t row_elements, DType type) {
  if (array == nullptr) return {};
  return {static_cast<const unsigned char*>(array),
          row_elements * static_cast<std::int64_t>(SizeOf(type))};
}

FusedArgs MakeFusedArgs(const Data& data, DType w_type, const FusedPlan& plan, const Device& device,
                        double* partials) {
  const Shape& shape = data.shape;
  FusedArgs args;
  args.plan = plan;
  args.ring.x = Rows(data.x, shape.d, data.x_type);
  args.ring.y = Rows(data.y, shape.k, data.w_type);
  args.ring.s = Rows(data.sample_weight, 1, data.w_type);
  args.ring.n = shape.n;
  args.ring.tiles = plan.tiles;
  args.ring.stage_bytes = plan.stage_bytes;
  args.ring.y_offset = plan.y_offset;
  args.ring.s_offset = plan.s_offset;
  args.ring.rows_per_tile = plan.rows_per_tile;
  args.ring.stages = plan.stages;
  args.ring.bulk = device.bulk_copies;
  args.w = data.w;
  args.w_type = w_type;
  args.y_type = data.w_type;
  args.d = static_cast<int>(shape.d);
  args.k = static_cast<int>(shape.k);
  args.intercept = shape.intercept;
  const auto load_bytes = static_cast<std::uintptr_t>(plan.vector) * SizeOf(data.x_type);
  args.wide_loads =
      plan.vector_columns && reinterpret_cast<std::uintptr_t>(data.x) % load_bytes == 0;
  args.partials = partials;
  args.finish.d = shape.d;
  args.finish.k = shape.k;
  args.finish.intercept = shape.intercept;
  const std::int64_t stride = args.partial_stride();
  args.finish.bias = {partials, stride, plan.blocks, false};
  args.finish.grad = {partials + (shape.intercept ? shape.k : 0), stride, plan.blocks, false};
  args.finish.loss = {partials + args.weights(), stride, plan.blocks, false};
  return args;
}

Status LaunchFusedFor(DType x_type, const FusedArgs& args, bool cooperative, cudaStream_t stream) {
  switch (x_type) {
    case DType::kFloat32:
      return LaunchFused<float>(args, cooperative, stream);
    case DType::kFloat64:
      return LaunchFused<double>(args, cooperative, stream);
    case DType::kFloat16:
      return LaunchFused<__half>(args, cooperative, stream);
    case DType::kBFloat16:
      return LaunchFused<__nv_bfloat16>(args, cooperative, stream);
  }
  return {Status::Code::kInternal, "unknown element type"};
}

// `outputs` names the outputs and their types; w_type is that of data.w.
Status ComputeWith(const Data& data, DType w_type, const FinishArgs& outputs, const Device& device,
                   cudaStream_t stream, void* workspace, const Gemm& gemm) {
  if (outputs.loss_out == nullptr && outputs.grad_out == nullptr) return Status();
  const FusedPlan plan = PlanFused(data, device, Purpose::kLossGrad);
  if (plan.path == Path::kChunks) {
    return ComputeChunked(data, w_type, outputs, device, stream, workspace, gemm);
  }
  FusedArgs args = MakeFusedArgs(data, w_type, plan, device, static_cast<double*>(workspace));
  args.finish.loss_type = outputs.loss_type;
  args.finish.grad_type = outputs.grad_type;
  args.finish.loss_per_target = outputs.loss_per_target;
  args.finish.loss_out = outputs.loss_out;
  args.finish.grad_out = outputs.grad_out;
  Status status = LaunchFusedFor(data.x_type, args, false, stream);
  if (!status.ok() || plan.blocks == 1) return status;
  return LaunchFinish(args.finish, stream);
}

std::int64_t LossGradBytes(const Data& data, const Device& device) {
  const FusedPlan plan = PlanFused(data, device, Purpose::kLossGrad);
  return plan.path == Path::kChunks ? ChunkedWorkspaceBytes(data, device)
                                    : PartialsBytes(data, plan, 1);
}

struct DescentParts {
  FusedPlan plan;
  bool one_launch;           // else one step after the other
  bool every_block_updates;  // one_launch only
  unsigned* barrier;
  double* partials;
  double* rates;
  void* w_state;
  void* v_state;
  void* grad;       // one step after the other only, as is what follows
  void* loss_grad;  // a single pass's workspace
  std::int64_t bytes;

  DescentParts(const Data& data, const Descent& descent, const Device& device, void* workspace)
      : plan(PlanFused(data, device, Purpose::kDescent)) {
    const std::int64_t count = WeightCount(data.shape);
    const std::int64_t state_bytes = count * AccumulatorSize(data);
    one_launch = plan.path != Path::kChunks && (plan.blocks == 1 || device.cooperative_launch);
    every_block_updates = plan.blocks == 1 || plan.blocks * count <= kRepeatedUpdateLoads;
    WorkspaceParts parts(workspace);
    barrier = parts.Take<unsigned>(sizeof(unsigned));
    w_state = parts.Take(state_bytes);
    if (one_launch) {
      v_state = parts.Take(state_bytes * (every_block_updates ? plan.blocks : 1));
      partials = parts.Take<double>(PartialsBytes(data, plan, 2));
      rates = parts.Take<double>(descent.num_rates > 1 ? descent.num_rates * 8 : 0);
      grad = loss_grad = nullptr;
    } else {
      v_state = parts.Take(state_bytes);
      grad = parts.Take(state_bytes);
      loss_grad = parts.Take(LossGradBytes(data, device));
      partials = rates = nullptr;
    }
    bytes = parts.bytes();
  }
};

Status Cancelled(std::int64_t step) {
  return {Status::Code::kCancelled, "cancelled before step " + std::to_string(step)};
}

bool IsCancelled(const Descent& descent) {
  return descent.cancelled != nullptr && descent.cancelled(descent.cancelled_context);
}

Status DescendInOneLaunch(const Data& data, const Descent& descent, const Device& device,
                          cudaStream_t stream, const DescentParts& parts) {
  FusedArgs args = MakeFusedArgs(data, data.w_type, parts.plan, device, parts.partials);
  args.finish.loss_type = args.finish.grad_type = data.w_type;
  DescentArgs& steps = args.descent;
  steps.enabled = true;
  steps.num_steps = descent.num_steps;
  steps.momentum = descent.momentum;
  steps.rate = descent.num_rates > 0 ? descent.rates[0] : 0.0;
  steps.w_state = parts.w_state;
  steps.v_state = parts.v_state;
  steps.every_block_updates = parts.every_block_updates;
  steps.barrier = parts.barrier;
  steps.w_out = descent.w;
  steps.losses = descent.losses;
  if (descent.num_rates > 1) {
    Status status = StoreRates(descent.rates, descent.num_rates, parts.rates, stream);
    if (!status.ok()) return status;
    steps.rates = parts.rates;
  }
  const bool cooperative = parts.plan.blocks > 1;
  for (std::int64_t first = 0; first <= descent.num_steps; first += kStepsPerLaunch) {
    if (IsCancelled(descent)) return Cancelled(first);
    steps.first_pass = first;
    steps.last_pass = std::min(first + kStepsPerLaunch, descent.num_steps + 1);
    if (cooperative) {
      Status status = CheckCuda(cudaMemsetAsync(parts.barrier, 0, sizeof(unsigned), stream),
                                "clearing the grid barrier");
      if (!status.ok()) return status;
    }
    Status status = LaunchFusedFor(data.x_type, args, cooperative, stream);
    if (!status.ok()) return status;
  }
  return Status();
}

Status DescendStepByStep(const Data& data, const Descent& descent, const Device& device,
                         cudaStream_t stream, const DescentParts& parts, const Gemm& gemm) {
  StepArgs step;
  step.w_in = data.w;
  step.w_out = descent.w;
  step.type = data.w_type;
  step.count = WeightCount(data.shape);
  step.momentum = descent.momentum;
  step.grad = parts.grad;
  step.w_state = parts.w_state;
  step.v_state = parts.v_state;
  step.begin = true;
  step.end = descent.num_steps == 0;
  Status status = LaunchStep(step, data.x_type, device, stream);
  step.begin = false;
  Data at_w = data;
  at_w.w = parts.w_state;
  FinishArgs outputs;
  outputs.loss_type = data.w_type;
  outputs.grad_type = AccumulatorType(data.x_type);
  for (std::int64_t t = 0; t <= descent.num_steps && status.ok(); ++t) {
    if (IsCancelled(descent)) return Cancelled(t);
    outputs.loss_out =
        static_cast<char*>(descent.losses) + t * static_cast<std::int64_t>(SizeOf(data.w_type));
    outputs.grad_out = t < descent.num_steps ? parts.grad : nullptr;
    status = ComputeWith(at_w, outputs.grad_type, outputs, device, stream, parts.loss_grad, gemm);
    if (!status.ok() || t == descent.num_steps) break;
    step.rate = descent.rates[descent.num_rates == 1 ? 0 : t];
    step.end = t + 1 == descent.num_steps;
    status = LaunchStep(step, data.x_type, device, stream);
  }
  return status;
}

Status CheckWorkspace(const void* workspace, std::int64_t got, std::int64_t needed) {
  if (got >= needed && (workspace != nullptr || needed == 0)) return Status();
  return Status::InvalidArgument("the workspace has " +
                                 std::to_string(workspace == nullptr ? 0 : got) +
                                 " bytes, but this call needs " + std::to_string(needed));
}

Status CheckDevice(const Device& device) {
  if (device.multiprocessors > 0 && device.shared_per_block > 0) return Status();
  return Status::InvalidArgument("the device has no multiprocessors: fill it by CurrentDevice");
}

}  // namespace

bool Compiled() { return true; }

Status CurrentDevice(Device* device) {
  int ordinal = 0;
  Status status = CheckCuda(cudaGetDevice(&ordinal), "finding the current CUDA device");
  const auto get = [&](cudaDeviceAttr attribute) {
    int value = 0;
    if (status.ok()) {
      status = CheckCuda(cudaDeviceGetAttribute(&value, attribute, ordinal),
                         "reading the properties of CUDA device " + std::to_string(ordinal));
    }
    return value;
  };
  device->multiprocessors = get(cudaDevAttrMultiProcessorCount);
  device->compute_capability = 10 * get(cudaDevAttrComputeCapabilityMajor);
  device->compute_capability += get(cudaDevAttrComputeCapabilityMinor);
  device->shared_per_block = get(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  device->shared_per_multiprocessor = get(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  device->shared_reserved = get(cudaDevAttrReservedSharedMemoryPerBlock);
  device->l2_bytes = get(cudaDevAttrL2CacheSize);
  device->cooperative_launch = get(cudaDevAttrCooperativeLaunch) != 0;
  device->bulk_copies = device->compute_capability >= 90;
  return status;
}

std::int64_t WorkspaceBytes(const Data& data, const Device& device) {
  return LossGradBytes(data, device);
}

std::int64_t DescentWorkspaceBytes(const Data& data, const Descent& descent, const Device& device) {
  return DescentParts(data, descent, device, nullptr).bytes;
}

Status ComputeLossGrad(const Data& data, const LossGrad& out, const Device& device, void* stream,
                       void* workspace, std::int64_t workspace_bytes, const Gemm& gemm) {
  Status status = Validate(data);
  if (status.ok()) status = CheckDevice(device);
  if (status.ok()) {
    status = CheckWorkspace(workspace, workspace_bytes, WorkspaceBytes(data, device));
  }
  if (!status.ok()) return status;
  FinishArgs outputs;
  outputs.loss_type = outputs.grad_type = data.w_type;
  outputs.loss_per_target = out.loss_per_target;
  outputs.loss_out = out.loss;
  outputs.grad_out = out.grad;
  return ComputeWith(data, data.w_type, outputs, device, static_cast<cudaStream_t>(stream),
                     workspace, gemm);
}

Status ComputeDescent(const Data& data, const Descent& descent, const Device& device, void* stream,
                      void* workspace, std::int64_t workspace_bytes, const Gemm& gemm) {
  Status status = Validate(data, descent);
  if (status.ok()) status = CheckDevice(device);
  if (!status.ok()) return status;
  const DescentParts parts(data, descent, device, workspace);
  status = CheckWorkspace(workspace, workspace_bytes, parts.bytes);
  if (!status.ok()) return status;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return parts.one_launch ? DescendInOneLaunch(data, descent, device, cuda_stream, parts)
                          : DescendStepByStep(data, descent, device, cuda_stream, parts, gemm);
}

}  // namespace cuda
}  // namespace linreg_ops
