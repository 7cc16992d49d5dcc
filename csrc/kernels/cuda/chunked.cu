#include <algorithm>
#include <cstdint>

#include "kernels/cuda/chunked.cuh"
#include "kernels/cuda/chunked.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/workspace.h"

namespace linreg_ops {
namespace cuda {
namespace {

DType AccumulatorType(DType type) {
  return type == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

struct ChunkParts {
  ChunkPlan plan;
  void* residuals;
  void* narrow_residuals;  // 16-bit X only
  float* wide_x;           // likewise
  double* grad_partials;   // or the GEMM's gradient
  double* loss_partials;
  std::int64_t bytes;

  ChunkParts(const Data& data, const Device& device, bool gemm, void* workspace)
      : plan(PlanChunks(data, device, gemm)) {
    WorkspaceParts parts(workspace);
    const Shape& shape = data.shape;
    const bool narrow = gemm && SizeOf(data.x_type) == 2;
    const auto acc = static_cast<std::int64_t>(SizeOf(AccumulatorType(data.x_type)));
    residuals = parts.Take(plan.rows * shape.k * acc);
    narrow_residuals = parts.Take(narrow ? plan.rows * shape.k * 2 : 0);
    wide_x = parts.Take<float>(narrow ? plan.rows * shape.d * 4 : 0);
    grad_partials = parts.Take<double>(plan.row_splits * shape.d * shape.k * 8);
    loss_partials = parts.Take<double>(std::int64_t{plan.residual_blocks} * 2 * shape.k * 8);
    bytes = parts.bytes();
  }
};

unsigned Blocks(std::int64_t wanted, std::int64_t most) {
  return static_cast<unsigned>(std::max<std::int64_t>(1, std::min(wanted, most)));
}

// The products of one chunk, and the residual between them.
template <typename T>
class Chunk {
 public:
  Chunk(const ChunkArgs& args, const ChunkParts& parts, DType x_type, bool want_grad,
        const Device& device, cudaStream_t stream, const Gemm& gemm, bool use_gemm)
      : args_(args),
        parts_(parts),
        want_grad_(want_grad),
        many_blocks_(16 * std::int64_t{device.multiprocessors}),
        stream_(stream),
        gemm_(gemm),
        use_gemm_(use_gemm) {
    call_.ab_type = x_type;
    call_.c_type = AccumulatorType(x_type);
    call_.a = args.x;
    args_.narrow_type = x_type;
    args_.narrow_residuals = nullptr;
    if (use_gemm_ && sizeof(T) == 2) {
      if (args.w_type == x_type) {
        args_.narrow_residuals = parts.narrow_residuals;
      } else {
        widen_ = true;
        call_.ab_type = DType::kFloat32;
        call_.a = parts.wide_x;
      }
    }
  }

  Status Run() {
    Status status = Dots();
    if (!status.ok()) return status;
    status = Launch({"the residual kernel", dim3(parts_.plan.residual_blocks), kThreads,
                     kReduceBytes, false, stream_},
                    ResidualsKernel<AccumulatorOf<T>>, args_);
    if (!status.ok() || !want_grad_) return status;
    return Grad();
  }

 private:
  Status Dots() {
    if (!use_gemm_) {
      const std::int64_t groups = CeilDiv(args_.rows, kChunkRows) * CeilDiv(args_.k, kChunkTargets);
      return Launch({"the dot product kernel", dim3(Blocks(groups, many_blocks_)), kThreads,
                     kReduceBytes, false, stream_},
                    DotsKernel<T>, args_);
    }
    if (widen_) {
      const std::int64_t count = args_.rows * args_.d;
      Status status =
          Launch({"the widening kernel", dim3(Blocks(CeilDiv(count, kThreads), many_blocks_)),
                  kThreads, 0, false, stream_},
                 WidenKernel<T>, static_cast<const T*>(args_.x), parts_.wide_x, count);
      if (!status.ok()) return status;
    }
    Gemm::Call call = call_;
    call.m = args_.rows;
    call.n = args_.k;
    call.k = args_.d;
    call.b = static_cast<const char*>(args_.w) +
             (args_.intercept ? args_.k * static_cast<std::int64_t>(SizeOf(args_.w_type)) : 0);
    call.c = args_.residuals;
    return gemm_.run(gemm_.context, call);
  }

  Status Grad() {
    if (!use_gemm_) {
      const dim3 grid(Blocks(CeilDiv(args_.d, kThreads), 1 << 16),
                      Blocks(CeilDiv(args_.k, kChunkTargets), 1 << 12),
                      static_cast<unsigned>(parts_.plan.row_splits));
      return Launch({"the gradient kernel", grid, kThreads, 0, false, stream_}, GradKernel<T>,
                    args_);
    }
    Gemm::Call call = call_;
    call.transpose_a = true;
    call.m = args_.d;
    call.n = args_.k;
    call.k = args_.rows;
    call.b = args_.narrow_residuals ? args_.narrow_residuals : args_.residuals;
    call.c = args_.grad_partials;
    call.beta = args_.first ? 0 : 1;
    return gemm_.run(gemm_.context, call);
  }

  ChunkArgs args_;
  const ChunkParts& parts_;
  const bool want_grad_;
  const std::int64_t many_blocks_;
  const cudaStream_t stream_;
  const Gemm& gemm_;
  const bool use_gemm_;
  bool widen_ = false;
  Gemm::Call call_;
};

template <typename T>
Status Compute(const Data& data, DType w_type, FinishArgs finish, const Device& device,
               cudaStream_t stream, void* workspace, const Gemm& gemm) {
  const Shape& shape = data.shape;
  const bool use_gemm = gemm.run != nullptr && SuitsGemm(shape);
  const ChunkParts parts(data, device, use_gemm, workspace);
  const auto w_size = static_cast<std::int64_t>(SizeOf(data.w_type));
  ChunkArgs args;
  args.w = data.w;
  args.w_type = w_type;
  args.y_type = data.w_type;
  args.d = shape.d;
  args.k = shape.k;
  args.intercept = shape.intercept;
  args.residuals = parts.residuals;
  args.grad_partials = parts.grad_partials;
  args.loss_partials = parts.loss_partials;
  // At least one chunk, so that the partial sums of an empty X are written.
  for (std::int64_t row = 0; row < shape.n || row == 0; row += parts.plan.rows) {
    const auto at = [row](const void* base, std::int64_t row_bytes) -> const void* {
      return base ? static_cast<const char*>(base) + row * row_bytes : nullptr;
    };
    args.first = row == 0;
    args.rows = std::min(parts.plan.rows, shape.n - row);
    args.x = at(data.x, shape.d * static_cast<std::int64_t>(sizeof(T)));
    args.y = at(data.y, shape.k * w_size);
    args.s = at(data.sample_weight, w_size);
    Status status = Chunk<T>(args, parts, data.x_type, finish.grad_out != nullptr, device, stream,
                             gemm, use_gemm)
                        .Run();
    if (!status.ok()) return status;
  }
  finish.d = shape.d;
  finish.k = shape.k;
  finish.intercept = shape.intercept;
  finish.grad = {parts.grad_partials, shape.d * shape.k,
                 use_gemm ? std::int64_t{1} : parts.plan.row_splits,
                 use_gemm && !IsWide(data.x_type)};
  finish.bias = {parts.loss_partials, 2 * shape.k, parts.plan.residual_blocks, false};
  finish.loss = {parts.loss_partials + shape.k, 2 * shape.k, parts.plan.residual_blocks, false};
  return LaunchFinish(finish, stream);
}

}  // namespace

std::int64_t ChunkedWorkspaceBytes(const Data& data, const Device& device, bool gemm) {
  return ChunkParts(data, device, gemm && SuitsGemm(data.shape), nullptr).bytes;
}

Status ComputeChunked(const Data& data, DType w_type, FinishArgs finish, const Device& device,
                      cudaStream_t stream, void* workspace, const Gemm& gemm) {
  switch (data.x_type) {
    case DType::kFloat32:
      return Compute<float>(data, w_type, finish, device, stream, workspace, gemm);
    case DType::kFloat64:
      return Compute<double>(data, w_type, finish, device, stream, workspace, gemm);
    case DType::kFloat16:
      return Compute<__half>(data, w_type, finish, device, stream, workspace, gemm);
    case DType::kBFloat16:
      return Compute<__nv_bfloat16>(data, w_type, finish, device, stream, workspace, gemm);
  }
  return {Status::Code::kInternal, "unknown element type"};
}

Status LaunchFinish(const FinishArgs& args, cudaStream_t stream) {
  const std::int64_t weights =
      args.grad_out ? (args.d + (args.intercept ? 1 : 0)) * args.k : std::int64_t{0};
  const unsigned grad_blocks =
      weights ? static_cast<unsigned>(std::min<std::int64_t>(CeilDiv(weights, 32), 1 << 14)) : 0;
  return Launch(
      {"the finishing kernel", dim3(grad_blocks + 1), kThreads, kReduceBytes, false, stream},
      FinishKernel<void>, args);
}

}  // namespace cuda
}  // namespace linreg_ops
