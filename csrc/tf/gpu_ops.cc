// The ops on the GPU: TensorFlow's stream, allocator and BLAS around the CUDA kernels. No CUDA
// header: the stream crosses the boundary as a pointer.
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/mutex.h"
#include "tf/op_kernels.h"
#include "tf/problem.h"
#include "tsl/platform/tensor_float_32_utils.h"
#include "xla/stream_executor/blas.h"
#include "xla/stream_executor/device_memory.h"
#include "xla/stream_executor/stream.h"
#include "xla/stream_executor/stream_executor.h"

namespace linreg_ops {
namespace {

namespace se = stream_executor;
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

// The arithmetic of a product. TF32 has to be asked for by its name: with kF32 BLAS never uses it,
// whatever the options allow.
se::blas::ComputationType ArithmeticOf(DType type, bool allow_tf32) {
  if (type == DType::kFloat64) return se::blas::ComputationType::kF64;
  return allow_tf32 && type == DType::kFloat32 ? se::blas::ComputationType::kTF32AsF32
                                               : se::blas::ComputationType::kF32;
}

// Through TensorFlow's own BLAS, in its precision for float32 (TF32 where the user allows that for
// tf.matmul). BLAS is column-major, so it computes Cᵀ = Bᵀ·op(A)ᵀ of the same memory.
Status RunGemm(void* context, const cuda::Gemm::Call& call) {
  auto* stream = static_cast<se::Stream*>(context);
  se::blas::BlasSupport* blas = stream->parent()->AsBlas();
  if (blas == nullptr) return {Status::Code::kInternal, "TensorFlow has no BLAS for this GPU"};
  const bool wide = call.c_type == DType::kFloat64;
  const bool allow_tf32 = tsl::tensor_float_32_execution_enabled();
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
      static_cast<int>(call.n), ArithmeticOf(call.ab_type, allow_tf32), se::blas::kDefaultGemmAlgo,
      Options::Make(allow_tf32), nullptr, se::blas::CallContext::kNone);
  if (status.ok()) return Status();
  return {Status::Code::kInternal,
          absl::StrCat("a matrix product of [", call.m, ", ", call.k, "] and [", call.k, ", ",
                       call.n, "] failed: ", status.ToString())};
}

// Belongs to a kernel instance, and so to one device, whose numbers it reads once.
class GpuHost {
 public:
  explicit GpuHost(OpKernelConstruction*) {}

  template <typename Output>
  absl::Status Run(OpKernelContext* ctx, const Problem& problem, const Output& output) {
    if constexpr (std::is_same_v<decltype(output(0)), Descent>) {
      const Descent any = output(0);
      const auto workspace_bytes = [&any](const Data& data, const cuda::Device& device) {
        return cuda::DescentWorkspaceBytes(data, any, device, true);
      };
      return ForEachProblem(ctx, problem, workspace_bytes, [&](std::int64_t i, const Call& c) {
        return cuda::ComputeDescent(problem.at(i), output(i), c.device, c.stream, c.workspace,
                                    c.bytes, c.gemm);
      });
    } else {
      const auto workspace_bytes = [](const Data& data, const cuda::Device& device) {
        return cuda::WorkspaceBytes(data, device, true);
      };
      return ForEachProblem(ctx, problem, workspace_bytes, [&](std::int64_t i, const Call& c) {
        return cuda::ComputeLossGrad(problem.at(i), output(i), c.device, c.stream, c.workspace,
                                     c.bytes, c.gemm);
      });
    }
  }

 private:
  struct Call {
    cuda::Device device;
    void* stream = nullptr;
    void* workspace = nullptr;
    std::int64_t bytes = 0;
    cuda::Gemm gemm;
  };

  // Calls solve(index, call) for every problem of a batch, one after the other on the op's stream,
  // with TensorFlow's context for the device current.
  template <typename WorkspaceBytes, typename Solve>
  absl::Status ForEachProblem(OpKernelContext* ctx, const Problem& problem,
                              const WorkspaceBytes& workspace_bytes, const Solve& solve) {
    se::Stream* stream = ctx->op_device_context()->stream();
    const auto activation = stream->parent()->Activate();
    Call call;
    absl::Status status = GetDevice(&call.device);
    if (!status.ok()) return status;
    call.bytes = workspace_bytes(problem.first, call.device);
    Tensor workspace;
    status = ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({call.bytes}), &workspace);
    if (!status.ok()) return status;
    call.stream = stream->platform_specific_handle().stream;
    call.workspace = workspace.data();
    call.gemm = {RunGemm, stream};
    for (std::int64_t i = 0; i < problem.count && status.ok(); ++i) status = ToAbsl(solve(i, call));
    return status;
  }

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

  tensorflow::mutex mu_;
  bool known_ TF_GUARDED_BY(mu_) = false;
  cuda::Device device_ TF_GUARDED_BY(mu_);
};

const bool registered = RegisterOps<GpuHost>(tensorflow::DEVICE_GPU);

}  // namespace
}  // namespace linreg_ops
