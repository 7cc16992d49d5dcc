// The whole kernel API: L2 loss of a linear model and its gradient, in one pass over X.
//
//     R = X·W − Y        loss = ½ Σᵢ sᵢ ‖Rᵢ‖²        ∇W = Xᵀ·diag(s)·R
//
// Fused because at k = 1 the work is bound by reading X: the unfused form reads X twice and stores
// R. Sums accumulate in float32 or wider, the loss in float64. Nothing here knows TensorFlow,
// pybind11 or Python; the caller brings threads or stream, and the workspace.
//
// Sizes are 64-bit. All arrays are row-major and contiguous, and need only the alignment of their
// element type. Outputs alias neither each other nor any input. With `intercept`, X has an implicit
// leading column of ones, and row 0 of W and of the gradient is the intercept's.
//
// Deterministic: the result's bits depend on the inputs and their shape alone, not on the number of
// threads, nor on the instruction set among those with a fused multiply-add.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dtypes.h"

namespace linreg_ops {

class Status {
 public:
  enum class Code { kOk, kInvalidArgument, kUnsupported, kInternal, kCancelled, kOutOfMemory };
  Status() = default;  // OK
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status InvalidArgument(std::string message) {
    return {Code::kInvalidArgument, std::move(message)};
  }
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

// Sizes of one problem: X is [n, d], W is [d + intercept, k], Y is [n, k].
struct Shape {
  std::int64_t n = 0;  // rows
  std::int64_t d = 0;  // features, without the intercept
  std::int64_t k = 0;  // targets
  bool intercept = false;
  std::int64_t weight_rows() const { return d + (intercept ? 1 : 0); }
};

// The data of a problem: what both entry points read. Host memory for cpu::, device memory for
// cuda::. A null y stands for Y = 0, which makes the gradient the Hessian-vector product Xᵀ·S·X·W.
struct Data {
  Shape shape;
  DType x_type = DType::kFloat32;
  DType w_type = DType::kFloat32;  // of w, y, sample_weight and every output: x_type, or float32
                                   // when x_type is a 16-bit type
  const void* x = nullptr;         // [n, d]
  const void* w = nullptr;         // [d + intercept, k]
  const void* y = nullptr;         // [n, k], or null for zeros
  const void* sample_weight = nullptr;  // [n], or null for ones
};

// How a caller ends what takes long, the last members of a call. Asked often, perhaps thousands of
// times a second, by any of the threads that work on the call, between and during passes over long
// X; true ends the call with kCancelled, its outputs half written. Null: never.
struct Cancellable {
  bool (*cancelled)(void* context) = nullptr;
  void* cancelled_context = nullptr;
};

// Where loss and gradient go. Empty sums are written too: every output is always fully written.
struct LossGrad {
  void* loss = nullptr;          // w_type; [] or, with loss_per_target, [k]; null: not wanted
  bool loss_per_target = false;  // one loss per column of Y rather than their sum
  void* grad = nullptr;          // w_type; [d + intercept, k]; null: not wanted
  bool (*cancelled)(void* context) = nullptr;  // see Cancellable
  void* cancelled_context = nullptr;
};

// Full-batch gradient descent from w: v ← momentum·v − rateₜ·∇W(wₜ), wₜ₊₁ = wₜ + v.
// The iterates are kept in float32 when w_type is a 16-bit type.
struct Descent {
  std::int64_t num_steps = 0;     // 0 ... kMaxSteps
  const double* rates = nullptr;  // host memory
  std::int64_t num_rates = 1;     // 1, or num_steps: one rate per step
  double momentum = 0.0;
  void* w = nullptr;       // w_type, [d + intercept, k]: the weights after the last step
  void* losses = nullptr;  // w_type, [num_steps + 1]: losses[t] is the loss at wₜ
  bool (*cancelled)(void* context) = nullptr;  // see Cancellable
  void* cancelled_context = nullptr;
  // Host memory, or null: set where a descent that is cancelled leaves the steps it has finished:
  // `w` after so many of them, and the losses before each. The GPU's leaves none.
  std::int64_t* steps_kept = nullptr;
};

// The losses of more steps fit in no memory. The one limit, whoever asks.
constexpr std::int64_t kMaxSteps = std::int64_t{1} << 40;

// The parts of Validate, for callers with sizes, types or a number of steps and no arrays yet.
Status ValidateSizes(const Shape& shape);
Status ValidateTypes(DType x_type, DType w_type);
Status ValidateSteps(std::int64_t num_steps);

// Negative sizes and sizes whose products overflow, be others 0 or not; dtype pairs without a
// kernel; missing arrays.
Status Validate(const Data& data);
Status Validate(const Data& data, const Descent& descent);
Status ValidateDescent(const Shape& shape, const Descent& descent);  // the second's second half

namespace cpu {

// The caller's threads. run(pool, workers, body, arg) calls body(arg) on the calling thread and on
// at most workers − 1 others at the same time, and returns when every call that started has
// returned. Calls that have not started by the time the caller's own returns may be dropped: a body
// claims its work from a shared counter, so that the caller alone can finish it (a busy pool then
// costs time, never a deadlock).
struct Threads {
  int count = 1;
  void (*run)(void* pool, int workers, void (*body)(void* arg), void* arg) = nullptr;
  void* pool = nullptr;
};

// The ways a problem can be computed. A table in plan.cc says which problem takes which.
enum class Route : std::uint8_t {
  kPlain,
  kLanePerRow,
  kLanePerRowPacked,
  kLanePerResidual,
  kLanePerColumn,
  kFewTargets,
  kGemmSlots,
  kGemmRounds,
};
constexpr int kNumRoutes = 8;

// The table's rows, in the order in which they are asked: the first that takes a problem runs it.
struct RouteInfo {
  Route route;
  const char* name;
  const char* takes;   // which problems, in words
  const char* reason;  // what it is for
};
std::vector<RouteInfo> Routes();

// What a call will do. A problem without a row, or without a target, takes no route: its name is
// "none".
struct PlanInfo {
  const char* isa;
  RouteInfo route;
  int workers;             // threads worth having, at most those there are
  std::int64_t tasks;      // that they share, in the largest stage
  std::int64_t tile_rows;  // rows whose second use hits the cache
  std::int64_t workspace_bytes;
};

struct CallPlan;

// One evaluation, or one descent, validated and planned: Make once, Run for every problem of the
// same sizes and types.
class Call {
 public:
  enum class Kind { kLossGrad, kDescent };

  // It matters only which of the arrays of `data` are null. `threads`: as many as Run will bring at
  // most. `isa`: a name from Isas(), or null for the one in use.
  static Status Make(Kind kind, const Data& data, int threads, const char* isa, Call* call);

  Call();
  Call(Call&&) noexcept;
  Call& operator=(Call&&) noexcept;
  ~Call();

  PlanInfo Explain() const;
  // Bytes of the memory that Run needs, 64-byte aligned and uninitialised, whatever the alignment
  // of the arrays: a function of sizes, types, threads and instruction set alone.
  std::int64_t workspace_bytes() const;

  // Both fail without touching an output if the sizes, types and missing arrays are not those that
  // the call was made for, or if `workspace_bytes` is too small. Sums over no data cost what
  // writing the outputs costs, whatever the sizes.
  Status Run(const Data& data, const LossGrad& out, const Threads& threads, void* workspace,
             std::int64_t workspace_bytes) const;
  Status Run(const Data& data, const Descent& descent, const Threads& threads, void* workspace,
             std::int64_t workspace_bytes) const;

 private:
  std::unique_ptr<const CallPlan> plan_;
};

// One row per instruction set compiled in, best first; `supported` on this CPU and OS.
struct Isa {
  const char* name;  // "avx512", "avx2", "scalar", "neon"
  bool supported;
};
std::vector<Isa> Isas();

// Every kernel there is: one row per instruction set and pair of types. Tests and benchmarks
// iterate it.
struct Variant {
  const char* isa;
  DType x_type;
  DType w_type;
  bool supported;
};
std::vector<Variant> Variants();

// The instruction set in use: the best supported, or the one that the environment variable
// LINREG_OPS_ISA names. An unknown or unsupported name is an error listing the valid ones.
Status ActiveIsa(const char** name);

}  // namespace cpu

// The same on an NVIDIA GPU. Every pointer in Data, LossGrad and Descent is device memory, except
// Descent::rates, which may be freed as soon as the call returns. Calls enqueue work on a stream
// and do not wait for it; an error that appears later is the stream's. In a build without CUDA
// every call returns kUnsupported.
namespace cuda {

// True in a build with CUDA, whether or not this machine has a GPU.
bool Compiled();

// What the partition of the work depends on beside the shape: the bits of a result are the same on
// devices of equal numbers.
struct Device {
  int multiprocessors = 0;
  int compute_capability = 0;         // 90 for Hopper
  std::int64_t shared_per_block = 0;  // bytes, with the opt-in
  std::int64_t shared_per_multiprocessor = 0;
  std::int64_t shared_reserved = 0;  // of each block's, by the driver
  std::int64_t l2_bytes = 0;
  bool cooperative_launch = false;
  int code = 0;  // the compute capability that the kernels' code here was compiled for
};

// The current device of the calling thread. Names the driver that is needed if it is too old.
Status CurrentDevice(Device* device);

// C = op(A)·B + beta·C, row-major and contiguous: op(A) is [m, k], B is [k, n], C is [m, n].
struct Gemm {
  struct Call {
    bool transpose_a = false;  // A is stored as [k, m]
    std::int64_t m = 0, n = 0, k = 0;
    DType ab_type = DType::kFloat32;
    DType c_type = DType::kFloat32;  // float64 for float64 A and B, else float32
    const void* a = nullptr;
    const void* b = nullptr;
    void* c = nullptr;
    double beta = 0;  // 0 or 1; C is not read when it is 0
  };
  // Enqueues on the caller's stream. Null: this library's own plain kernels.
  Status (*run)(void* context, const Call& call) = nullptr;
  void* context = nullptr;
};

// Bytes of workspace (256-byte aligned, uninitialised device memory) that a call needs, whatever
// the alignment of its inputs; `gemm`: whether it brings one.
std::int64_t WorkspaceBytes(const Data& data, const Device& device, bool gemm = false);
std::int64_t DescentWorkspaceBytes(const Data& data, const Descent& descent, const Device& device,
                                   bool gemm = false);

// `stream` is a cudaStream_t of the current device. Both validate first, and both fail without
// touching an output if `workspace_bytes` is too small. The workspace must stay allocated until the
// stream has passed the call.
Status ComputeLossGrad(const Data& data, const LossGrad& out, const Device& device, void* stream,
                       void* workspace, std::int64_t workspace_bytes, const Gemm& gemm = {});

// `cancelled` is polled between launches, while the GPU may still be working on earlier ones.
Status ComputeDescent(const Data& data, const Descent& descent, const Device& device, void* stream,
                      void* workspace, std::int64_t workspace_bytes, const Gemm& gemm = {});

}  // namespace cuda
}  // namespace linreg_ops
