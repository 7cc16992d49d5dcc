#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/chunked.h"
#include "kernels/cuda/fused.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/single_pass.h"
#include "kernels/cuda/tensor.h"
#include "kernels/cuda/workspace.h"

namespace linreg_ops {
namespace cuda {
std::int64_t PartialsBytes(const Data& data, const FusedPlan& plan, int sets) {
  const Shape& shape = data.shape;
  return sets * plan.teams * (shape.weight_rows() * shape.k + shape.k) * 8;
}

FusedArgs MakeFusedArgs(const Data& data, DType w_type, const FusedPlan& plan, double* partials) {
  const Shape& shape = data.shape;
  FusedArgs args;
  args.plan = plan;
  args.x = data.x;
  args.y = data.y;
  args.s = data.sample_weight;
  args.n = shape.n;
  args.w = data.w;
  args.w_type = w_type;
  args.y_type = data.w_type;
  args.d = static_cast<int>(shape.d);
  args.k = static_cast<int>(shape.k);
  args.intercept = shape.intercept;
  const auto load_bytes = static_cast<std::uintptr_t>(plan.variant.vector) * SizeOf(data.x_type);
  args.wide_loads = reinterpret_cast<std::uintptr_t>(data.x) % load_bytes == 0;
  args.partials = partials;
  args.finish.d = shape.d;
  args.finish.k = shape.k;
  args.finish.intercept = shape.intercept;
  const std::int64_t stride = args.partial_stride();
  args.finish.bias = {partials, stride, plan.teams, false};
  args.finish.grad = {partials + (shape.intercept ? shape.k : 0), stride, plan.teams, false};
  args.finish.loss = {partials + args.weights(), stride, plan.teams, false};
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

namespace {

Status LaunchTensorFor(DType x_type, const FusedArgs& args, cudaStream_t stream) {
  switch (x_type) {
    case DType::kBFloat16:
      return LaunchTensorBfloat16(args, stream);
    case DType::kFloat16:
      return LaunchTensorFloat16(args, stream);
    default:
      return LaunchTensorFloat32(args, stream);
  }
}

bool GoesByChunks(const Data& data, const FusedPlan& plan, bool gemm) {
  return plan.path == Path::kChunks || (plan.path == Path::kRows && gemm && PrefersGemm(data));
}

// The workspace of a pass by the fused kernel.
struct PassParts {
  double* partials;
  std::int64_t team_bytes = 0;
  unsigned long long* team_words;
  std::int64_t bytes;

  PassParts(const Data& data, const FusedPlan& plan, void* workspace) {
    WorkspaceParts parts(workspace);
    partials = parts.Take<double>(PartialsBytes(data, plan, 1));
    if (plan.team > 1) {
      team_bytes = std::int64_t{2} * plan.blocks * plan.rows * plan.variant.targets * 8 *
                   (IsWide(data.x_type) ? 2 : 1);
    }
    team_words = parts.Take<unsigned long long>(team_bytes);
    bytes = parts.bytes();
  }
};

}  // namespace

Status LaunchLossGrad(const Data& data, DType w_type, const FinishArgs& outputs,
                      const Device& device, cudaStream_t stream, void* workspace,
                      const Gemm& gemm) {
  if (outputs.loss_out == nullptr && outputs.grad_out == nullptr) return Status();
  const FusedPlan plan = PlanPass(data, device);
  if (GoesByChunks(data, plan, gemm.run != nullptr)) {
    return ComputeChunked(data, w_type, outputs, device, stream, workspace, gemm);
  }
  const PassParts parts(data, plan, workspace);
  FusedArgs args = MakeFusedArgs(data, w_type, plan, parts.partials);
  args.team_words = parts.team_words;
  if (plan.narrow_sums) {
    Partials& grad = args.finish.grad;
    args.narrow_grad = grad.narrow = true;
    grad.stride *= 2;
  }
  args.finish.loss_type = outputs.loss_type;
  args.finish.grad_type = outputs.grad_type;
  args.finish.loss_per_target = outputs.loss_per_target;
  args.finish.loss_out = outputs.loss_out;
  args.finish.grad_out = outputs.grad_out;
  Status status;
  if (plan.team > 1) {
    status = CheckCuda(
        cudaMemsetAsync(parts.team_words, 0, static_cast<std::size_t>(parts.team_bytes), stream),
        "clearing what the blocks of a row tell each other");
  }
  if (status.ok()) {
    status = plan.path == Path::kTensorCores
                 ? LaunchTensorFor(data.x_type, args, stream)
                 : LaunchFusedFor(data.x_type, args, plan.team > 1, stream);
  }
  if (status.code() ==
      Status::Code::kUnsupported) {  // the blocks of a row are not resident at once
    return ComputeChunked(data, w_type, outputs, device, stream, workspace, gemm);
  }
  const bool finished = plan.path == Path::kRows && plan.blocks == 1;
  if (!status.ok() || finished) return status;
  return LaunchFinish(args.finish, stream);
}

std::int64_t LossGradBytes(const Data& data, const Device& device, bool gemm) {
  const auto bytes_of = [&](const FusedPlan& plan) {
    const std::int64_t chunked =
        plan.path == Path::kTensorCores ? 0 : ChunkedWorkspaceBytes(data, device, gemm);
    if (GoesByChunks(data, plan, gemm)) return chunked;
    const std::int64_t bytes = PassParts(data, plan, nullptr).bytes;
    return plan.team > 1 ? std::max(bytes, chunked) : bytes;
  };
  const FusedPlan plan = PlanPass(data, device);
  const std::int64_t bytes = bytes_of(plan);
  // Who asks before there is an X may bring one that is not aligned.
  return plan.path == Path::kTensorCores ? std::max(bytes, bytes_of(PlanFused(data, device)))
                                         : bytes;
}

}  // namespace cuda
}  // namespace linreg_ops
