#include <cstdint>

#include "kernels/cuda/chunked.h"
#include "kernels/cuda/fused.h"
#include "kernels/cuda/single_pass.h"

namespace linreg_ops {
namespace cuda {
std::int64_t PartialsBytes(const Data& data, const FusedPlan& plan, int sets) {
  const Shape& shape = data.shape;
  return sets * plan.blocks * (shape.weight_rows() * shape.k + shape.k) * 8;
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

Status LaunchLossGrad(const Data& data, DType w_type, const FinishArgs& outputs,
                      const Device& device, cudaStream_t stream, void* workspace,
                      const Gemm& gemm) {
  if (outputs.loss_out == nullptr && outputs.grad_out == nullptr) return Status();
  const FusedPlan plan = PlanFused(data, device);
  if (plan.path == Path::kChunks) {
    return ComputeChunked(data, w_type, outputs, device, stream, workspace, gemm);
  }
  FusedArgs args = MakeFusedArgs(data, w_type, plan, static_cast<double*>(workspace));
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
  const FusedPlan plan = PlanFused(data, device);
  return plan.path == Path::kChunks ? ChunkedWorkspaceBytes(data, device)
                                    : PartialsBytes(data, plan, 1);
}

}  // namespace cuda
}  // namespace linreg_ops
