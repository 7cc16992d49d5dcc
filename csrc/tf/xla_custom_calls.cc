#include "tf/xla_custom_calls.h"

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "kernels/cpu/for_each_problem.h"
#include "kernels/l2_loss_grad.h"
#include "tf/intra_op_threads.h"
#include "xla/ffi/api/c_api.h"
#include "xla/ffi/api/ffi.h"

// Declared here as its header would bring in half of XLA. Its C twin, XLA_FFI_GetApi, is exported
// by the wheel of tensorflow but not by tensorflow-cpu's.
namespace xla {
namespace ffi {
const XLA_FFI_Api* GetXlaFfiApi();
}  // namespace ffi
}  // namespace xla

namespace linreg_ops {
namespace {

namespace ffi = ::xla::ffi;
using ffi::AnyBuffer;
using Output = ffi::Result<AnyBuffer>;

ffi::Error ToFfi(const Status& status) {
  switch (status.code()) {
    case Status::Code::kOk:
      return ffi::Error::Success();
    case Status::Code::kInvalidArgument:
      return ffi::Error::InvalidArgument(status.message());
    case Status::Code::kUnsupported:
      return {ffi::ErrorCode::kUnimplemented, status.message()};
    case Status::Code::kCancelled:
      return {ffi::ErrorCode::kCancelled, status.message()};
    case Status::Code::kOutOfMemory:
      return {ffi::ErrorCode::kResourceExhausted, status.message()};
    case Status::Code::kInternal:
      break;
  }
  return ffi::Error::Internal(status.message());
}

Status KernelType(const AnyBuffer& buffer, DType* type) {
  switch (buffer.element_type()) {
    case ffi::DataType::F32:
      *type = DType::kFloat32;
      return Status();
    case ffi::DataType::F64:
      *type = DType::kFloat64;
      return Status();
    case ffi::DataType::F16:
      *type = DType::kFloat16;
      return Status();
    case ffi::DataType::BF16:
      *type = DType::kBFloat16;
      return Status();
    default:
      return {Status::Code::kUnsupported, "no kernel for this element type"};
  }
}

// The operands as the kernels' problems. The ops' lowering has checked their shapes against each
// other; what is left to check here is what the kernels check themselves. No batch is empty: XLA
// leaves out a call whose results have no element.
Status MakeBatch(const AnyBuffer& x, const AnyBuffer& w, const AnyBuffer* y,
                 const ffi::RemainingArgs& weights, bool intercept, Batch* batch) {
  const auto x_dims = x.dimensions(), w_dims = w.dimensions();
  const bool rank_1 = w_dims.size() == 1;
  if (x_dims.size() < 2 || w_dims.size() != (rank_1 ? 1 : x_dims.size())) {
    return Status::InvalidArgument("x must be [..., n, d] and w [..., d, k] or [d]");
  }
  Data& data = batch->first;
  data.shape.n = x_dims[x_dims.size() - 2];
  data.shape.d = x_dims[x_dims.size() - 1];
  data.shape.k = rank_1 ? 1 : w_dims.back();
  data.shape.intercept = intercept;
  for (std::size_t i = 0; i + 2 < x_dims.size(); ++i) batch->count *= x_dims[i];
  if (Status s = KernelType(x, &data.x_type); !s.ok()) return s;
  if (Status s = KernelType(w, &data.w_type); !s.ok()) return s;
  data.x = x.untyped_data();
  data.w = w.untyped_data();
  if (y != nullptr) data.y = y->untyped_data();
  if (weights.size() > 0) {
    const auto sample_weight = weights.get<AnyBuffer>(0);
    if (!sample_weight.has_value()) {
      return Status::InvalidArgument("sample_weight must be an array");
    }
    data.sample_weight = sample_weight->untyped_data();
  }
  return Validate(data);
}

// After a kernel of the same program that XLA ran on several threads, this thread is whichever
// ended it, and knows of no budget: the whole pool is used then, as XLA's kernels do.
cpu::Threads ThreadsOf(ffi::ThreadPool& pool) { return IntraOpThreads(&pool, pool.num_threads()); }

// XLA's CPU runtime has no allocator for a handler to ask (ScratchAllocator fails there).
class HeapWorkspace {
 public:
  void* operator()(std::int64_t bytes) const {
    constexpr std::align_val_t kAlignment{64};
    memory_.reset(static_cast<char*>(
        ::operator new(static_cast<std::size_t>(bytes), kAlignment, std::nothrow)));
    return memory_.get();
  }

 private:
  struct Delete {
    void operator()(char* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  mutable std::unique_ptr<char, Delete> memory_;
};

template <typename Output>
Status RunEach(const Batch& batch, ffi::ThreadPool& pool, const Output& output) {
  if (batch.first.shape.n == 0) {
    cpu::WriteEmptySums(batch, output(0));
    return Status();
  }
  return cpu::ForEachProblem(
      batch, ThreadsOf(pool),
      [](const Data& data, int count) { return cpu::WorkspaceBytes(data, count); }, HeapWorkspace(),
      [&](std::int64_t i, const cpu::Threads& threads, void* scratch, std::int64_t bytes) {
        return cpu::ComputeLossGrad(batch.at(i), output(i), threads, scratch, bytes);
      });
}

ffi::Error L2LossGrad(ffi::ThreadPool pool, AnyBuffer x, AnyBuffer w, AnyBuffer y,
                      ffi::RemainingArgs weights, Output loss, Output grad, bool intercept,
                      bool loss_per_target) {
  Batch batch;
  if (Status s = MakeBatch(x, w, &y, weights, intercept, &batch); !s.ok()) return ToFfi(s);
  const Shape& shape = batch.first.shape;
  const auto output = [&](std::int64_t i) {
    LossGrad out;
    out.loss = batch.Offset(loss->untyped_data(), i, loss_per_target ? shape.k : 1);
    out.loss_per_target = loss_per_target;
    out.grad = batch.Offset(grad->untyped_data(), i, shape.weight_rows() * shape.k);
    return out;
  };
  return ToFfi(RunEach(batch, pool, output));
}

ffi::Error HessianVectorProduct(ffi::ThreadPool pool, AnyBuffer x, AnyBuffer v,
                                ffi::RemainingArgs weights, Output product, bool intercept) {
  Batch batch;
  if (Status s = MakeBatch(x, v, nullptr, weights, intercept, &batch); !s.ok()) return ToFfi(s);
  const Shape& shape = batch.first.shape;
  const auto output = [&](std::int64_t i) {
    LossGrad out;
    out.grad = batch.Offset(product->untyped_data(), i, shape.weight_rows() * shape.k);
    return out;
  };
  return ToFfi(RunEach(batch, pool, output));
}

ffi::Error GradientDescent(ffi::ThreadPool pool, AnyBuffer x, AnyBuffer w, AnyBuffer y,
                           ffi::AnyBuffer rates, ffi::BufferR0<ffi::F64> momentum,
                           ffi::RemainingArgs weights, Output new_w, Output losses,
                           bool intercept) {
  Batch batch;
  if (Status s = MakeBatch(x, w, &y, weights, intercept, &batch); !s.ok()) return ToFfi(s);
  const Shape& shape = batch.first.shape;
  Descent descent;
  descent.num_steps = losses->dimensions().back() - 1;
  descent.rates = rates.typed_data<double>();
  descent.num_rates = rates.dimensions().size() == 0 ? 1 : descent.num_steps;
  descent.momentum = *momentum.typed_data();
  return ToFfi(cpu::ForEachProblem(
      batch, ThreadsOf(pool),
      [](const Data& data, int count) { return cpu::DescentWorkspaceBytes(data, count); },
      HeapWorkspace(),
      [&](std::int64_t i, const cpu::Threads& threads, void* scratch, std::int64_t bytes) {
        Descent one = descent;
        one.w = batch.Offset(new_w->untyped_data(), i, shape.weight_rows() * shape.k);
        one.losses = batch.Offset(losses->untyped_data(), i, descent.num_steps + 1);
        return cpu::ComputeDescent(batch.at(i), one, threads, scratch, bytes);
      }));
}

XLA_FFI_DEFINE_HANDLER(kL2LossGrad, L2LossGrad,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<AnyBuffer>()
                           .Arg<AnyBuffer>()
                           .Arg<AnyBuffer>()
                           .RemainingArgs()
                           .Ret<AnyBuffer>()
                           .Ret<AnyBuffer>()
                           .Attr<bool>("intercept")
                           .Attr<bool>("loss_per_target"));

XLA_FFI_DEFINE_HANDLER(kHessianVectorProduct, HessianVectorProduct,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<AnyBuffer>()
                           .Arg<AnyBuffer>()
                           .RemainingArgs()
                           .Ret<AnyBuffer>()
                           .Attr<bool>("intercept"));

XLA_FFI_DEFINE_HANDLER(kGradientDescent, GradientDescent,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<AnyBuffer>()
                           .Arg<AnyBuffer>()
                           .Arg<AnyBuffer>()
                           .Arg<AnyBuffer>()
                           .Arg<ffi::BufferR0<ffi::F64>>()
                           .RemainingArgs()
                           .Ret<AnyBuffer>()
                           .Ret<AnyBuffer>()
                           .Attr<bool>("intercept"));

bool Register(const char* target, XLA_FFI_Handler* handler) {
  const XLA_FFI_Api* api = xla::ffi::GetXlaFfiApi();
  XLA_FFI_Error* error = ffi::Ffi::RegisterStaticHandler(api, target, "Host", handler);
  if (error == nullptr) return true;
  XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
  api->XLA_FFI_Error_Destroy(&destroy);
  return false;
}

const bool registered = Register(kL2LossGradCall, kL2LossGrad) &&
                        Register(kHessianVectorProductCall, kHessianVectorProduct) &&
                        Register(kGradientDescentCall, kGradientDescent);

}  // namespace

bool HostCustomCallsRegistered() { return registered; }

}  // namespace linreg_ops
