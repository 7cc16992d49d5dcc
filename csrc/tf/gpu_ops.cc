// The ops on the GPU: TensorFlow's stream, allocator and BLAS around the CUDA kernels. No CUDA
// header: the stream crosses the boundary as a pointer.
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/mutex.h"
#include "tf/problem.h"
#include "tsl/platform/tensor_float_32_utils.h"
#include "xla/stream_executor/blas.h"
#include "xla/stream_executor/device_memory.h"
#include "xla/stream_executor/stream.h"
#include "xla/stream_executor/stream_executor.h"

namespace linreg_ops {
namespace {

namespace se = stream_executor;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

// The options' type of a BLAS call, whose name differs between TensorFlow's minor versions: the
// last but two of the parameters.
template <typename Function>
struct BlasOptions;
template <typename Result, typename Class, typename... Parameters>
struct BlasOptions<Result (Class::*)(Parameters...)> {
  using type =
      std::decay_t<std::tuple_element_t<sizeof...(Parameters) - 3, std::tuple<Parameters...>>>;

  static type Make(bool allow_tf32) {
    constexpr bool kDeterministic = true;
    if constexpr (std::is_constructible_v<type, bool, bool, bool>) {
      return type(kDeterministic, allow_tf32, false);
    } else {
      return type(kDeterministic, allow_tf32);
    }
  }
};

se::blas::DataType BlasType(DType type) {
  switch (type) {
    case DType::kFloat64:
      return se::blas::DataType::kDouble;
    case DType::kFloat16:
      return se::blas::DataType::kHalf;
    case DType::kBFloat16:
      return se::blas::DataType::kBF16;
    default:
      return se::blas::DataType::kFloat;
  }
}

// Through TensorFlow's own BLAS, in its precision for float32 (TF32 where the user allows that for
// tf.matmul). BLAS is column-major, so it computes Cᵀ = Bᵀ·op(A)ᵀ of the same memory.
Status RunGemm(void* context, const cuda::Gemm::Call& call) {
  auto* stream = static_cast<se::Stream*>(context);
  se::blas::BlasSupport* blas = stream->parent()->AsBlas();
  if (blas == nullptr) return {Status::Code::kInternal, "TensorFlow has no BLAS for this GPU"};
  const bool wide = call.c_type == DType::kFloat64;
  const float one = 1, beta = static_cast<float>(call.beta);
  const double wide_one = 1;
  const se::DeviceMemoryBase a(const_cast<void*>(call.a)), b(const_cast<void*>(call.b));
  se::DeviceMemoryBase c(call.c);
  const auto transpose_a =
      call.transpose_a ? se::blas::Transpose::kTranspose : se::blas::Transpose::kNoTranspose;
  using Options = BlasOptions<decltype(&se::blas::BlasSupport::DoBlasGemmWithAlgorithm)>;
  const absl::Status status = blas->DoBlasGemmWithAlgorithm(
      stream, se::blas::Transpose::kNoTranspose, transpose_a, call.n, call.m, call.k,
      wide ? static_cast<const void*>(&wide_one) : &one, b, BlasType(call.ab_type),
      static_cast<int>(call.n), a, BlasType(call.ab_type),
      static_cast<int>(call.transpose_a ? call.m : call.k),
      wide ? static_cast<const void*>(&call.beta) : &beta, &c, BlasType(call.c_type),
      static_cast<int>(call.n),
      wide ? se::blas::ComputationType::kF64 : se::blas::ComputationType::kF32,
      se::blas::kDefaultGemmAlgo, Options::Make(tsl::tensor_float_32_execution_enabled()), nullptr,
      se::blas::CallContext::kNone);
  if (status.ok()) return Status();
  return {Status::Code::kInternal,
          absl::StrCat("a matrix product of [", call.m, ", ", call.k, "] and [", call.k, ", ",
                       call.n, "] failed: ", status.ToString())};
}

// A kernel instance belongs to one device, whose numbers it reads once.
class GpuOpKernel : public OpKernel {
 public:
  explicit GpuOpKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("intercept", &intercept_));
  }

 protected:
  // Calls solve(data, index, device, stream, workspace, bytes, gemm) for every problem of a batch,
  // one after the other on the op's stream, with TensorFlow's context for the device current.
  template <typename WorkspaceBytes, typename Solve>
  absl::Status ForEachProblem(OpKernelContext* ctx, const Problem& problem,
                              const WorkspaceBytes& workspace_bytes, const Solve& solve) {
    se::Stream* stream = ctx->op_device_context()->stream();
    const auto activation = stream->parent()->Activate();
    cuda::Device device;
    absl::Status status = GetDevice(&device);
    if (!status.ok()) return status;
    const std::int64_t bytes = workspace_bytes(problem.first, device);
    Tensor workspace;
    status = ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), &workspace);
    const cuda::Gemm gemm = {RunGemm, stream};
    for (std::int64_t i = 0; i < problem.count && status.ok(); ++i) {
      status = ToAbsl(solve(problem.at(i), i, device, stream->platform_specific_handle().stream,
                            workspace.data(), bytes, gemm));
    }
    return status;
  }

  bool intercept() const { return intercept_; }

 private:
  absl::Status GetDevice(cuda::Device* device) {
    tensorflow::mutex_lock lock(mu_);
    if (!known_) {
      absl::Status status = ToAbsl(cuda::CurrentDevice(&device_));
      if (!status.ok()) return status;
      known_ = true;
    }
    *device = device_;
    return absl::OkStatus();
  }

  bool intercept_;
  tensorflow::mutex mu_;
  bool known_ TF_GUARDED_BY(mu_) = false;
  cuda::Device device_ TF_GUARDED_BY(mu_);
};

class L2LossGradGpuOp : public GpuOpKernel {
 public:
  explicit L2LossGradGpuOp(OpKernelConstruction* ctx) : GpuOpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("loss_per_target", &loss_per_target_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), &ctx->input(2), sample_weight,
                                    intercept(), &problem));
    const std::int64_t k = problem.first.shape.k;
    const std::int64_t weights = problem.first.shape.weight_rows() * k;
    TensorShape loss_shape = problem.batch_shape;
    if (loss_per_target_ && problem.weight_shape.dims() > 1) loss_shape.AddDim(k);
    Tensor* loss;
    Tensor* grad;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, loss_shape, &loss));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, problem.weight_shape, &grad));
    OP_REQUIRES_OK(
        ctx, ForEachProblem(
                 ctx, problem, cuda::WorkspaceBytes,
                 [&](const Data& data, std::int64_t i, const cuda::Device& device, void* stream,
                     void* workspace, std::int64_t bytes, const cuda::Gemm& gemm) {
                   LossGrad out;
                   out.loss = problem.Offset(loss->data(), i, loss_per_target_ ? k : 1);
                   out.loss_per_target = loss_per_target_;
                   out.grad = problem.Offset(grad->data(), i, weights);
                   return cuda::ComputeLossGrad(data, out, device, stream, workspace, bytes, gemm);
                 }));
  }

 private:
  bool loss_per_target_;
};

class HessianVectorProductGpuOp : public GpuOpKernel {
 public:
  using GpuOpKernel::GpuOpKernel;

  void Compute(OpKernelContext* ctx) override {
    const Tensor* sample_weight;
    Problem problem;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), nullptr, sample_weight,
                                    intercept(), &problem));
    const std::int64_t weights = problem.first.shape.weight_rows() * problem.first.shape.k;
    Tensor* product;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, problem.weight_shape, &product));
    OP_REQUIRES_OK(
        ctx, ForEachProblem(
                 ctx, problem, cuda::WorkspaceBytes,
                 [&](const Data& data, std::int64_t i, const cuda::Device& device, void* stream,
                     void* workspace, std::int64_t bytes, const cuda::Gemm& gemm) {
                   LossGrad out;
                   out.grad = problem.Offset(product->data(), i, weights);
                   return cuda::ComputeLossGrad(data, out, device, stream, workspace, bytes, gemm);
                 }));
  }
};

class SavedGradientGpuOp : public OpKernel {
 public:
  using OpKernel::OpKernel;
  void Compute(OpKernelContext* ctx) override { ctx->set_output(0, ctx->input(1)); }
  bool IsExpensive() override { return false; }
};

class GradientDescentGpuOp : public GpuOpKernel {
 public:
  using GpuOpKernel::GpuOpKernel;

  void Compute(OpKernelContext* ctx) override {
    const Tensor* sample_weight;
    Problem problem;
    Descent descent;
    OP_REQUIRES_OK(ctx, GetSampleWeight(ctx, &sample_weight));
    OP_REQUIRES_OK(ctx, MakeProblem(ctx->input(0), ctx->input(1), &ctx->input(2), sample_weight,
                                    intercept(), &problem));
    OP_REQUIRES_OK(ctx, MakeDescent(ctx->input(3), ctx->input(4), ctx->input(5), &descent));
    const std::int64_t weights = problem.first.shape.weight_rows() * problem.first.shape.k;
    TensorShape losses_shape = problem.batch_shape;
    OP_REQUIRES_OK(ctx, losses_shape.AddDimWithStatus(descent.num_steps + 1));
    Tensor* w;
    Tensor* losses;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, problem.weight_shape, &w));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, losses_shape, &losses));
    if (tensorflow::CancellationManager* cancellation = ctx->cancellation_manager()) {
      descent.cancelled_context = cancellation;
      descent.cancelled = [](void* manager) {
        return static_cast<tensorflow::CancellationManager*>(manager)->IsCancelled();
      };
    }
    const auto workspace_bytes = [&](const Data& data, const cuda::Device& device) {
      return cuda::DescentWorkspaceBytes(data, descent, device);
    };
    OP_REQUIRES_OK(
        ctx, ForEachProblem(
                 ctx, problem, workspace_bytes,
                 [&](const Data& data, std::int64_t i, const cuda::Device& device, void* stream,
                     void* workspace, std::int64_t bytes, const cuda::Gemm& gemm) {
                   Descent one = descent;
                   one.w = problem.Offset(w->data(), i, weights);
                   one.losses = problem.Offset(losses->data(), i, descent.num_steps + 1);
                   return cuda::ComputeDescent(data, one, device, stream, workspace, bytes, gemm);
                 }));
  }
};

#define REGISTER_GPU(Tx, Tw)                                  \
  REGISTER_KERNEL_BUILDER(Name("Linreg>L2LossGrad")           \
                              .Device(tensorflow::DEVICE_GPU) \
                              .TypeConstraint<Tx>("Tx")       \
                              .TypeConstraint<Tw>("Tw"),      \
                          L2LossGradGpuOp);                   \
  REGISTER_KERNEL_BUILDER(Name("Linreg>HessianVectorProduct") \
                              .Device(tensorflow::DEVICE_GPU) \
                              .TypeConstraint<Tx>("Tx")       \
                              .TypeConstraint<Tw>("Tw"),      \
                          HessianVectorProductGpuOp);         \
  REGISTER_KERNEL_BUILDER(Name("Linreg>GradientDescent")      \
                              .Device(tensorflow::DEVICE_GPU) \
                              .HostMemory("learning_rate")    \
                              .HostMemory("num_steps")        \
                              .HostMemory("momentum")         \
                              .TypeConstraint<Tx>("Tx")       \
                              .TypeConstraint<Tw>("Tw"),      \
                          GradientDescentGpuOp)

REGISTER_GPU(float, float);
REGISTER_GPU(double, double);
REGISTER_GPU(Eigen::half, Eigen::half);
REGISTER_GPU(Eigen::half, float);
REGISTER_GPU(Eigen::bfloat16, Eigen::bfloat16);
REGISTER_GPU(Eigen::bfloat16, float);
REGISTER_KERNEL_BUILDER(Name("Linreg>SavedGradient").Device(tensorflow::DEVICE_GPU),
                        SavedGradientGpuOp);

}  // namespace
}  // namespace linreg_ops
