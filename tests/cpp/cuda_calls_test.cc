// What the calls of the CUDA kernel API do around the kernels, on the PTX runner: every way to
// descend gives the same bits, every error of the runtime is reported. Usage: cuda_calls_test
// PTX_FOLDER
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/plan.h"
#include "kernels/l2_loss_grad.h"
#include "machine.h"
#include "report.h"

using namespace linreg_ops;  // NOLINT

namespace {

int failures = 0;

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

ptx_runner::Machine& machine() { return ptx_runner::machine(); }

// An array of the host that the runner takes for the GPU's.
class Lent : public std::vector<double> {
 public:
  explicit Lent(std::size_t size) : std::vector<double>(size) {
    ptx_runner::global_memory().Lend(data(), size * sizeof(double));
  }
  Lent(Lent&&) = default;
  Lent(const Lent& other) : Lent(other.size()) { std::copy(other.begin(), other.end(), begin()); }
  ~Lent() {
    if (data() != nullptr) ptx_runner::global_memory().TakeBack(data());
  }
};

cuda::Device TestDevice() {
  cuda::Device device;
  Expect(cuda::CurrentDevice(&device).ok(), "CurrentDevice");
  return device;
}

// A problem whose arrays live as long as it does, and its descent.
struct Problem {
  Lent x, w, y;
  std::vector<double> rates;
  Data data;
  Descent descent;

  // float64's memory holds any type's; the bits are whatever small numbers they happen to be.
  Problem(std::int64_t n, std::int64_t d, std::int64_t k, DType type, std::int64_t steps)
      : x(n * d + 1), w((d + 1) * k + 1), y(n * k + 1), rates(steps) {
    std::mt19937_64 rng(n + d);
    std::normal_distribution<double> normal;
    const auto fill = [&](std::vector<double>& array) {
      for (std::size_t i = 0; i < array.size(); ++i) {
        if (type == DType::kFloat64) {
          array[i] = normal(rng);
        } else {
          reinterpret_cast<float*>(array.data())[i] = static_cast<float>(normal(rng));
        }
      }
    };
    fill(x);
    fill(w);
    fill(y);
    for (std::int64_t t = 0; t < steps; ++t) rates[t] = 0.1 / n / d / (1 + t % 3);
    data.shape = {n, d, k, true};
    data.x_type = data.w_type = type;
    data.x = x.data();
    data.w = w.data();
    data.y = y.data();
    descent.num_steps = steps;
    descent.rates = rates.data();
    descent.num_rates = steps;
    descent.momentum = 0.5;
  }
};

// The weights and the losses, or the error.
struct Outcome {
  Status status;
  Lent w{0}, losses{0};
  bool operator==(const Outcome& other) const {
    return status.ok() && other.status.ok() && w == other.w && losses == other.losses;
  }
};

// What the call enqueues on a stream that records, done afterwards.
template <typename Call>
Status ReplayOf(cudaStream_t stream, const Call& call) {
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  const Status status = call();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  cudaStreamEndCapture(stream, &graph);
  cudaGraphInstantiate(&instance, graph, 0);
  machine().graph_launches -= 1;  // which is ours, not the call's
  cudaGraphLaunch(instance, nullptr);
  cudaGraphExecDestroy(instance);
  cudaGraphDestroy(graph);
  return status;
}

Outcome Descend(const Problem& problem, const cuda::Device& device, cudaStream_t stream = nullptr,
                const cuda::Gemm& gemm = {}) {
  Outcome outcome{Status(), Lent(problem.w.size()), Lent(problem.descent.num_steps + 1)};
  Descent descent = problem.descent;
  descent.w = outcome.w.data();
  descent.losses = outcome.losses.data();
  const std::int64_t bytes = cuda::DescentWorkspaceBytes(problem.data, descent, device);
  void* workspace = nullptr;
  cudaMallocAsync(&workspace, bytes, nullptr);
  const auto compute = [&] {
    return cuda::ComputeDescent(problem.data, descent, device, stream, workspace, bytes, gemm);
  };
  outcome.status = stream != nullptr ? ReplayOf(stream, compute) : compute();
  cudaStreamSynchronize(stream);
  cudaFree(workspace);
  return outcome;
}

// The same from a caller who records the call, and so has no use for a graph of ours.
Outcome DescendRecorded(const Problem& problem, const cuda::Device& device) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  Outcome outcome = Descend(problem, device, stream);
  cudaStreamDestroy(stream);
  return outcome;
}

// Few weights, which every block brings up to date for itself, and many, which the blocks share.
std::vector<Problem> ProblemsOfSeveralBlocks() {
  std::vector<Problem> problems;
  problems.emplace_back(17'000, 1, 1, DType::kFloat32, 34);
  problems.emplace_back(500, 33, 3, DType::kFloat64, 34);
  problems.emplace_back(40, 900, 1, DType::kFloat32, 34);
  return problems;
}

void TestWaysToDescend() {
  for (const Problem& problem : ProblemsOfSeveralBlocks()) {
    const std::string name =
        "d=" + std::to_string(problem.data.shape.d) + " " + NameOf(problem.data.x_type) + ": ";
    cuda::Device device = TestDevice();
    const cuda::FusedPlan plan = cuda::PlanFused(problem.data, device);
    Expect(plan.path != cuda::Path::kChunks && plan.blocks > 1, name + "a grid of several blocks");
    machine().launches = machine().graph_launches = 0;
    const Outcome together = Descend(problem, device);
    Expect(together.status.ok(), name + together.status.message());
    Expect(machine().launches == 2, name + "the schedule's copy and one launch");  // NOLINT

    machine().resident_blocks = 1;
    const Outcome refused = Descend(problem, device);
    Expect(refused == together, name + "a refused cooperative launch gives the same bits");
    Expect(machine().graph_launches == 2, name + "two graphs of 16 steps");
    machine().resident_blocks = std::numeric_limits<unsigned>::max();

    machine().graph_launches = 0;
    device.cooperative_launch = false;
    Expect(Descend(problem, device) == together, name + "no cooperative launch, the same bits");
    Expect(machine().graph_launches == 2, name + "two graphs of 16 steps");

    Problem few = problem;
    few.data.x = few.x.data();
    few.data.w = few.w.data();
    few.data.y = few.y.data();
    few.descent.num_steps = few.descent.num_rates = 5;
    few.descent.rates = few.rates.data();
    machine().graph_launches = 0;
    const Outcome alone = Descend(few, device);
    device.cooperative_launch = true;
    Expect(Descend(few, device) == alone, name + "few steps, the same bits");
    Expect(machine().graph_launches == 0, name + "no graph for a few steps");
  }
}

// Rows too wide for all blocks together, and many targets.
std::vector<Problem> ProblemsInChunks(std::int64_t steps) {
  std::vector<Problem> problems;
  problems.emplace_back(3, 25'000, 1, DType::kFloat32, steps);
  problems.emplace_back(50, 3, 17, DType::kFloat64, steps);
  return problems;
}

void TestDescentInChunks() {
  constexpr int kSteps = 34;
  const cuda::Device device = TestDevice();
  for (const Problem& problem : ProblemsInChunks(kSteps)) {
    const Shape& shape = problem.data.shape;
    const std::string name = "d=" + std::to_string(shape.d) + " k=" + std::to_string(shape.k) +
                             " " + NameOf(problem.data.x_type) + ": ";
    Expect(cuda::PlanFused(problem.data, device).path == cuda::Path::kChunks, name + "chunks");
    machine().graph_launches = 0;
    const Outcome alone = DescendRecorded(problem, device);
    Expect(alone.status.ok(), name + alone.status.message());
    Expect(machine().graph_launches == 0, name + "no graph where the caller records");
    Expect(Descend(problem, device) == alone, name + "the same bits from a graph");
    Expect(machine().graph_launches == 2, name + "two graphs of 16 steps");

    std::int64_t products = 0;
    const auto count = [](void* context, const cuda::Gemm::Call& call) {
      ++*static_cast<std::int64_t*>(context);
      const auto bytes = static_cast<std::size_t>(call.m * call.n) * SizeOf(call.c_type);
      std::memset(call.c, 0, bytes);
      return Status();
    };
    machine().graph_launches = 0;
    const Outcome outcome = Descend(problem, device, nullptr, {count, &products});
    Expect(outcome.status.ok(), name + outcome.status.message());
    const bool theirs = cuda::SuitsGemm(shape);
    Expect(theirs == (shape.k > 1), name + "products of the caller's");
    Expect(products == (theirs ? 2 * kSteps + 1 : 0),
           name + std::to_string(products) + " products");
    Expect(machine().graph_launches == (theirs ? 0 : 2),
           name + "no graph of the caller's products");
  }
}

// Rows that several blocks share: one launch for a pass, and chunks where the blocks cannot all be
// resident, which is as right.
void TestBlocksThatShareARow() {
  const cuda::Device device = TestDevice();
  const Problem problem(6, 5'002, 1, DType::kFloat64, 1);
  const cuda::FusedPlan plan = cuda::PlanFused(problem.data, device);
  Expect(plan.path == cuda::Path::kRows && plan.team == 3 && plan.teams == 1, "a team of blocks");
  const std::int64_t bytes = cuda::WorkspaceBytes(problem.data, device);
  Lent workspace(bytes / 8 + 1), loss(1), grad(problem.w.size()), other_loss(1),
      other_grad(problem.w.size());
  const auto compute = [&](Lent& to_loss, Lent& to_grad) {
    machine().launches = 0;
    return cuda::ComputeLossGrad(problem.data, {to_loss.data(), false, to_grad.data()}, device,
                                 nullptr, workspace.data(), bytes);
  };
  const Status together = compute(loss, grad);
  Expect(together.ok() && machine().launches == 2, "the pass and its end: " + together.message());
  machine().resident_blocks = 2;
  const Status refused = compute(other_loss, other_grad);
  machine().resident_blocks = std::numeric_limits<unsigned>::max();
  Expect(refused.ok() && machine().launches == 4, "a chunk: " + refused.message());
  double worst = std::abs(loss[0] - other_loss[0]) / loss[0];
  for (std::size_t i = 0; i < problem.w.size() - 1; ++i) {
    worst = std::max(worst, std::abs(grad[i] - other_grad[i]) / (1 + std::abs(grad[i])));
  }
  // Sums of 5002 products in float64, in another order.
  Expect(worst < 1e-10, "the same within rounding, not " + std::to_string(worst));
}

// The caller's GEMM gets what BLAS's int holds.
void TestProductsOfTheCaller() {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  Expect(cuda::SuitsGemm({1, kMost, 17, false}) && cuda::SuitsGemm({1, 1, kMost, false}),
         "the largest leading dimensions");
  Expect(!cuda::SuitsGemm({1, kMost + 1, 17, false}), "too many columns for BLAS");
  Expect(!cuda::SuitsGemm({1, 1, kMost + 1, false}), "too many targets for BLAS");
  Expect(!cuda::SuitsGemm({9, 9, 4, false}), "few targets");
  Expect(!cuda::SuitsGemm({0, 9, 17, false}) && !cuda::SuitsGemm({9, 0, 17, false}), "empty X");
  const auto prefers = [](std::int64_t n, std::int64_t d, std::int64_t k, DType type) {
    Data data;
    data.shape = {n, d, k, false};
    data.x_type = data.w_type = type;
    return cuda::PrefersGemm(data);
  };
  constexpr std::int64_t kMany = 1 << 20;
  Expect(prefers(kMany, 1000, 8, DType::kFloat32) && prefers(kMany, 100, 16, DType::kFloat32) &&
             prefers(kMany, 256, 8, DType::kBFloat16),
         "products that cuBLAS does faster");
  Expect(!prefers(kMany, 256, 8, DType::kFloat32) && !prefers(kMany, 16, 16, DType::kFloat32) &&
             !prefers(kMany, 1000, 4, DType::kBFloat16) && !prefers(9, 1000, 16, DType::kFloat32) &&
             !prefers(kMany, 1000, 16, DType::kFloat64),
         "products that the fused kernel does faster, or that nobody measured");
}

// Every way to descend asks between its launches.
void TestCancelled() {
  struct Countdown {
    int left;
    static bool Reached(void* self) { return static_cast<Countdown*>(self)->left-- == 0; }
  };
  const auto expect = [](Problem& problem, const cuda::Device& device, int polls,
                         const std::string& message) {
    Countdown countdown{polls};
    problem.descent.cancelled = Countdown::Reached;
    problem.descent.cancelled_context = &countdown;
    const Status status = Descend(problem, device).status;
    Expect(status.code() == Status::Code::kCancelled && status.message() == message,
           message + ", not '" + status.message() + "'");
  };
  cuda::Device device = TestDevice();
  Problem chunks(50, 3, 17, DType::kFloat32, 34), blocks(17'000, 1, 1, DType::kFloat32, 34);
  for (Problem* problem : {&chunks, &blocks}) {
    expect(*problem, device, 0, "cancelled before step 0");
    device.cooperative_launch = false;
    expect(*problem, device, 2, "cancelled before step 17");
    expect(*problem, device, 3, "cancelled before step 33");
  }
}

// A workspace that is a byte too small, or missing: nothing is launched, no output touched.
void TestWorkspaceTooSmall() {
  const cuda::Device device = TestDevice();
  for (const Problem& problem :
       {Problem(50, 3, 1, DType::kFloat64, 2), Problem(50, 3, 17, DType::kFloat64, 2)}) {
    Data data = problem.data;
    data.x = problem.x.data();
    data.w = problem.w.data();
    data.y = problem.y.data();
    std::vector<double> out(problem.w.size(), -1), losses(3, -1);
    Descent descent = problem.descent;
    descent.rates = problem.rates.data();
    descent.w = out.data();
    descent.losses = losses.data();
    const std::int64_t once = cuda::WorkspaceBytes(data, device);
    const std::int64_t steps = cuda::DescentWorkspaceBytes(data, descent, device);
    std::vector<double> memory(std::max(once, steps) / 8 + 1);
    machine().launches = 0;
    for (const bool missing : {false, true}) {
      void* workspace = missing ? nullptr : memory.data();
      const Status pass = cuda::ComputeLossGrad(data, {losses.data(), false, out.data()}, device,
                                                nullptr, workspace, missing ? once : once - 1);
      const Status descended = cuda::ComputeDescent(data, descent, device, nullptr, workspace,
                                                    missing ? steps : steps - 1);
      for (const Status& status : {pass, descended}) {
        Expect(status.code() == Status::Code::kInvalidArgument &&
                   status.message().find("the workspace has ") == 0,
               "a workspace too small: " + status.message());
      }
    }
    Expect(machine().launches == 0 && out == std::vector<double>(out.size(), -1) &&
               losses == std::vector<double>(3, -1),
           "a workspace too small touches nothing");
  }
}

// A kernel's limit of shared memory is the kernel's, not the call's: one thread may launch it with
// less between another's asking for it and its launch.
void TestSharedMemoryOfTwoThreads() {
  const cuda::Device device = TestDevice();
  const Problem large(40, 4096, 1, DType::kFloat32, 1), small(40, 1000, 1, DType::kFloat32, 1);
  const auto shared_bytes = [&](const Problem& problem) {
    return cuda::PlanFused(problem.data, device).shared_bytes;
  };
  Expect(shared_bytes(large) > shared_bytes(small) && shared_bytes(small) > (48 << 10),
         "two sizes of shared memory");
  Status other(Status::Code::kInternal, "not called");
  machine().after_asking_for_shared = [&] { other = Descend(small, device).status; };
  const Status status = Descend(large, device).status;
  Expect(status.ok(), "the launch that was interrupted: " + status.message());
  Expect(other.ok(), "the launch between: " + other.message());
}

std::set<std::string> what_failed;

// Runs `call` with the first, second, ... call of the runtime failing, until none is left to fail.
void TestErrorsOf(const std::string& name, const std::function<Status()>& call) {
  constexpr int kIllegalAddress = 700;
  for (int i = 0;; ++i) {
    ++machine().ordinal;  // a device for which nothing has been asked before
    machine().error = kIllegalAddress;
    machine().calls_until_error = i;
    const Status status = call();
    const bool failed = machine().calls_until_error < 0;
    machine().calls_until_error = -1;
    if (!failed) {
      Expect(status.ok(), name + ": " + status.message());
      Expect(i > 0, name + ": calls of the runtime");
      return;
    }
    const std::string& message = status.message();
    Expect(status.code() == Status::Code::kInternal &&
               message.find(" failed: cudaErrorEmulated (error 700): ") != std::string::npos,
           name + ": the error of call " + std::to_string(i) + ": " + message);
    const std::string what = message.substr(0, message.find(" failed: "));
    what_failed.insert(std::regex_replace(what, std::regex("\\d+"), "N"));
  }
}

void TestErrors() {
  TestErrorsOf("the device", [] {
    cuda::Device device;
    return cuda::CurrentDevice(&device);
  });
  cuda::Device device = TestDevice();
  struct Case {
    std::int64_t n, d, k, steps;
  };
  // Descents of one block, of a grid, of blocks that share a row, of a grid with graphs, in chunks
  // with graphs.
  for (const Case c : {Case{50, 3, 1, 2},
                       {60, 600, 1, 2},
                       {2, 17'000, 1, 1},
                       {17'000, 1, 1, 33},
                       {2, 3, 17, 33}}) {
    const Problem problem(c.n, c.d, c.k, DType::kFloat32, c.steps);
    const std::string name = "d=" + std::to_string(c.d) + " k=" + std::to_string(c.k);
    TestErrorsOf(name + " descent", [&] { return Descend(problem, device).status; });
    cuda::Device other = device;
    other.cooperative_launch = false;
    TestErrorsOf(name + " descent in launches", [&] { return Descend(problem, other).status; });
    Lent loss(1), grad(problem.w.size());
    const std::int64_t bytes = cuda::WorkspaceBytes(problem.data, device);
    Lent workspace(bytes / 8 + 1);
    TestErrorsOf(name + " loss and gradient", [&] {
      return cuda::ComputeLossGrad(problem.data, {loss.data(), false, grad.data()}, device, nullptr,
                                   workspace.data(), bytes);
    });
  }
  const std::set<std::string> expected = {
      "asking for N bytes of shared memory for the fused kernel",
      "clearing the grid barrier",
      "clearing the steps' counters",
      "clearing what the blocks of a row tell each other",
      "finding the current CUDA device",
      "launching a CUDA graph",
      "launching the descent's step kernel",
      "launching the dot product kernel",
      "launching the finishing kernel",
      "launching the fused kernel",
      "launching the gradient kernel",
      "launching the residual kernel",
      "launching the schedule's copy",
      "loading the kernels on CUDA device N",
      "making a CUDA graph",
      "reading the properties of CUDA device N",
      "recording launches",
      "creating a stream to record launches on",
  };
  for (const std::string& what : what_failed) {
    Expect(expected.count(what) == 1, "the error of what failed says '" + what + "'");
  }
  for (const std::string& what : expected) {
    Expect(what_failed.count(what) == 1, "no error says '" + what + "'");
  }
  machine().error = cudaErrorInsufficientDriver;
  machine().calls_until_error = 0;
  const std::string message = cuda::CurrentDevice(&device).message();
  Expect(message.find("too old for CUDA 13.0, ") != std::string::npos &&
             message.find("needs driver r580 or newer") != std::string::npos,
         message);
  machine().error = cudaErrorNoKernelImageForDevice;
  machine().calls_until_error = 0;
  const std::string image = cuda::CurrentDevice(&device).message();
  Expect(image.find("LINREG_OPS_CUDA_ARCHITECTURES") != std::string::npos, image);
}

void TestWhatCodeRuns() { Expect(TestDevice().code == 90, "the code's compute capability"); }

// Empty arrays of sizes whose products overflow: an error, or empty sums, but no crash.
void TestHugeEmptyArrays() {
  const cuda::Device device = TestDevice();
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  for (const Shape& shape :
       {Shape{0, kHuge, 0, false}, Shape{0, 0, kHuge, false}, Shape{kHuge, 0, 0, false},
        Shape{0, kHuge, 0, true}, Shape{std::int64_t{1} << 47, 0, 0, false}}) {
    for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kBFloat16}) {
      Data data;
      data.shape = shape;
      data.x_type = data.w_type = type;
      Lent loss_array(1);
      double& loss = loss_array[0];
      loss = -1;
      const std::int64_t bytes = cuda::WorkspaceBytes(data, device);
      Expect(bytes >= 0 && bytes < (1 << 20), "a workspace of " + std::to_string(bytes));
      Lent workspace(bytes / 8 + 1);
      const Status status = cuda::ComputeLossGrad(data, {&loss, false, nullptr}, device, nullptr,
                                                  workspace.data(), bytes);
      const bool refused =
          status.code() == Status::Code::kInvalidArgument && status.message().find("sizes") == 0;
      double zero = 0;
      Expect(refused || (status.ok() && std::memcmp(&loss, &zero, SizeOf(type)) == 0),
             "huge empty arrays: " + status.message());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  machine().ptx_folder = argv[1];
  TestWaysToDescend();
  TestDescentInChunks();
  TestBlocksThatShareARow();
  TestProductsOfTheCaller();
  TestCancelled();
  TestWorkspaceTooSmall();
  TestSharedMemoryOfTwoThreads();
  TestErrors();
  TestWhatCodeRuns();
  TestHugeEmptyArrays();
  for (const std::string& fault : ptx_runner::faults().first) std::printf("%s\n", fault.c_str());
  failures += static_cast<int>(ptx_runner::faults().count);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
