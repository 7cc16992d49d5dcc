// The CUDA kernels, as compiled PTX on the CPU, against float64 truth: every type and path, rows at
// every alignment between pages that must not be touched. The digest it prints is the same for
// every order of the threads. Usage: cuda_random_test PTX_FOLDER CASES ORDER
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/plan.h"
#include "kernels/l2_loss_grad.h"
#include "machine.h"
#include "report.h"

using namespace linreg_ops;  // NOLINT

namespace {

int failures = 0;
std::mt19937_64 rng(1);
std::uint64_t digest = 14695981039346656037u;  // of every result's bits

void Digest(const void* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    digest = (digest ^ static_cast<const unsigned char*>(bytes)[i]) * 1099511628211u;
  }
}

double Get(const void* array, std::int64_t i, DType type) {
  switch (type) {
    case DType::kFloat64:
      return static_cast<const double*>(array)[i];
    case DType::kFloat32:
      return static_cast<const float*>(array)[i];
    case DType::kFloat16:
      return __half2float(static_cast<const __half*>(array)[i]);
    case DType::kBFloat16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(array)[i]);
  }
  return 0;
}

void Set(void* array, std::int64_t i, DType type, double value) {
  switch (type) {
    case DType::kFloat64:
      static_cast<double*>(array)[i] = value;
      break;
    case DType::kFloat32:
      static_cast<float*>(array)[i] = static_cast<float>(value);
      break;
    case DType::kFloat16:
      static_cast<__half*>(array)[i] = __double2half(value);
      break;
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(array)[i] = __double2bfloat16(value);
      break;
  }
}

double Epsilon(DType type) {
  switch (type) {
    case DType::kFloat64:
      return 0x1p-53;
    case DType::kFloat32:
      return 0x1p-24;
    case DType::kFloat16:
      return 0x1p-11;
    case DType::kBFloat16:
      return 0x1p-8;
  }
  return 0;
}

// An array with inaccessible pages around it, at either end of its own.
class Guarded {
 public:
  Guarded(std::int64_t elements, DType type, bool at_end) {
    const std::size_t bytes = elements * SizeOf(type);
    const std::size_t page = 4096, inside = (bytes + page - 1) / page * page + page;
    map_bytes_ = inside + 2 * page;
    map_ = static_cast<char*>(
        mmap(nullptr, map_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(map_ + page, inside, PROT_READ | PROT_WRITE);
    data_ = at_end ? map_ + page + inside - bytes : map_ + page;
    // One element in from the page's start: as unaligned as its type allows.
    if (!at_end && bytes + SizeOf(type) <= inside) data_ += SizeOf(type);
    std::memset(map_ + page, 0xff, inside);
    ptx_runner::global_memory().Lend(data_, bytes);
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() {
    munmap(map_, map_bytes_);
    ptx_runner::global_memory().TakeBack(data_);
  }
  void* data() const { return data_; }

 private:
  char* map_;
  char* data_;
  std::size_t map_bytes_;
};

struct Case {
  std::int64_t n, d, k;
  DType x_type, w_type;
  bool intercept, has_y, has_s, per_target, gemm;
  std::string Name() const {
    return "n=" + std::to_string(n) + " d=" + std::to_string(d) + " k=" + std::to_string(k) + " " +
           NameOf(x_type) + "/" + NameOf(w_type) + (intercept ? " intercept" : "") +
           (has_y ? " y" : "") + (has_s ? " s" : "") + (per_target ? " per_target" : "") +
           (gemm ? " gemm" : "");
  }
};

Status HostGemm(void*, const cuda::Gemm::Call& call) {
  for (std::int64_t i = 0; i < call.m; ++i) {
    for (std::int64_t j = 0; j < call.n; ++j) {
      double sum = call.beta ? Get(call.c, i * call.n + j, call.c_type) : 0;
      for (std::int64_t l = 0; l < call.k; ++l) {
        sum += Get(call.a, call.transpose_a ? l * call.m + i : i * call.k + l, call.ab_type) *
               Get(call.b, l * call.n + j, call.ab_type);
      }
      Set(call.c, i * call.n + j, call.c_type, sum);
    }
  }
  return Status();
}

struct Truth {
  std::vector<double> loss, grad, loss_scale, grad_scale;  // the scale: sums of absolute values
};

Truth Solve(const Data& data, const std::vector<double>& w) {
  const Shape& s = data.shape;
  const int bias = s.intercept ? 1 : 0;
  Truth t;
  t.loss.assign(s.k, 0);
  t.loss_scale.assign(s.k, 0);
  t.grad.assign(s.weight_rows() * s.k, 0);
  t.grad_scale = t.grad;
  for (std::int64_t i = 0; i < s.n; ++i) {
    const double weight = data.sample_weight ? Get(data.sample_weight, i, data.w_type) : 1;
    for (std::int64_t j = 0; j < s.k; ++j) {
      double r = data.y ? -Get(data.y, i * s.k + j, data.w_type) : 0;
      double scale = std::fabs(r);
      if (bias) {  // one more term of the sum: |δr| ≤ (d + 2) u (|x||w| + |bias| + |y|)
        r += w[j];
        scale += std::fabs(w[j]);
      }
      for (std::int64_t c = 0; c < s.d; ++c) {
        const double term = Get(data.x, i * s.d + c, data.x_type) * w[(c + bias) * s.k + j];
        r += term;
        scale += std::fabs(term);
      }
      t.loss[j] += 0.5 * weight * r * r;
      t.loss_scale[j] += 0.5 * weight * scale * scale;
      if (bias) {
        t.grad[j] += weight * r;
        t.grad_scale[j] += weight * scale;
      }
      for (std::int64_t c = 0; c < s.d; ++c) {
        const double x = Get(data.x, i * s.d + c, data.x_type);
        t.grad[(c + bias) * s.k + j] += weight * r * x;
        t.grad_scale[(c + bias) * s.k + j] += weight * scale * std::fabs(x);
      }
    }
  }
  return t;
}

void Expect(const Case& c, const char* what, double got, double want, double bound) {
  constexpr double kFloat16Overflow = 65000;
  if (c.w_type == DType::kFloat16 && std::fabs(want) + bound > kFloat16Overflow) return;
  if (std::fabs(got - want) <= bound) return;
  if (++failures <= 20) {
    std::printf("FAILED %s: %s: got %.9g, want %.9g, bound %.3g\n", c.Name().c_str(), what, got,
                want, bound);
  }
}

cuda::Device TestDevice() {
  cuda::Device device;
  cuda::CurrentDevice(&device);
  return device;
}

// `tensor`: a problem that the tensor cores have, with X as aligned as they need it.
void Run(const Case& c, bool tensor = false) {
  std::normal_distribution<double> normal;
  const bool at_end = tensor || rng() % 2;
  Data data;
  data.shape = {c.n, c.d, c.k, c.intercept};
  data.x_type = c.x_type;
  data.w_type = c.w_type;
  const std::int64_t weights = data.shape.weight_rows() * c.k;
  Guarded x(c.n * c.d, c.x_type, at_end), w(weights, c.w_type, at_end),
      y(c.n * c.k, c.w_type, at_end), s(c.n, c.w_type, at_end);
  for (std::int64_t i = 0; i < c.n * c.d; ++i) Set(x.data(), i, c.x_type, normal(rng));
  for (std::int64_t i = 0; i < weights; ++i) Set(w.data(), i, c.w_type, normal(rng));
  for (std::int64_t i = 0; i < c.n * c.k; ++i) Set(y.data(), i, c.w_type, normal(rng));
  for (std::int64_t i = 0; i < c.n; ++i) Set(s.data(), i, c.w_type, rng() % 3 * 0.5);
  data.x = x.data();
  data.w = w.data();
  data.y = c.has_y ? y.data() : nullptr;
  data.sample_weight = c.has_s ? s.data() : nullptr;
  std::vector<double> start(weights);
  for (std::int64_t i = 0; i < weights; ++i) start[i] = Get(w.data(), i, c.w_type);
  if (tensor && cuda::PlanPass(data, TestDevice()).path != cuda::Path::kTensorCores) {
    ++failures;
    std::printf("FAILED %s: not by tensor cores\n", c.Name().c_str());
  }
  const Truth truth = Solve(data, start);

  const double eps = Epsilon(c.x_type == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  const bool rounded = c.gemm && c.k > 16 && SizeOf(c.w_type) == 2;  // residuals become 16-bit
  const double terms = 4 + c.d + std::sqrt(static_cast<double>(c.n));
  const double bound = eps * terms + (rounded ? 4 * Epsilon(c.w_type) : 0);
  const double out_eps = Epsilon(c.w_type);
  const cuda::Gemm gemm = {c.gemm ? HostGemm : nullptr, nullptr};
  const std::int64_t losses = c.per_target ? c.k : 1;
  {
    const cuda::Device device = TestDevice();
    const std::int64_t bytes = cuda::WorkspaceBytes(data, device, c.gemm);
    Guarded workspace(bytes + 256, DType::kBFloat16, false), loss(losses, c.w_type, at_end),
        grad(weights, c.w_type, at_end);
    void* aligned = reinterpret_cast<void*>(
        (reinterpret_cast<std::uintptr_t>(workspace.data()) + 255) / 256 * 256);
    const Status status = cuda::ComputeLossGrad(data, {loss.data(), c.per_target, grad.data()},
                                                device, nullptr, aligned, bytes, gemm);
    if (!status.ok()) {
      ++failures;
      std::printf("FAILED %s: %s\n", c.Name().c_str(), status.message().c_str());
      return;
    }
    double total = 0, total_scale = 0;
    for (std::int64_t j = 0; j < c.k; ++j) {
      total += truth.loss[j];
      total_scale += truth.loss_scale[j];
      if (c.per_target) {
        Expect(c, "loss of a target", Get(loss.data(), j, c.w_type), truth.loss[j],
               bound * truth.loss_scale[j] + 2 * out_eps * truth.loss[j]);
      }
    }
    if (!c.per_target) {
      Expect(c, "loss", Get(loss.data(), 0, c.w_type), total,
             bound * total_scale + 2 * out_eps * total);
    }
    for (std::int64_t i = 0; i < weights; ++i) {
      Expect(c, "grad", Get(grad.data(), i, c.w_type), truth.grad[i],
             bound * truth.grad_scale[i] + 2 * out_eps * std::fabs(truth.grad[i]));
    }
    if (tensor) {  // the loss alone is the same
      const std::vector<char> before(
          static_cast<const char*>(loss.data()),
          static_cast<const char*>(loss.data()) + losses * SizeOf(c.w_type));
      std::memset(loss.data(), 0xff, before.size());
      cuda::ComputeLossGrad(data, {loss.data(), c.per_target, nullptr}, device, nullptr, aligned,
                            bytes, gemm);
      if (std::memcmp(loss.data(), before.data(), before.size()) != 0) {
        ++failures;
        std::printf("FAILED %s: the loss without the gradient\n", c.Name().c_str());
      }
    }
    std::vector<char> bits(losses * SizeOf(c.w_type) + weights * SizeOf(c.w_type));
    std::memcpy(bits.data(), loss.data(), losses * SizeOf(c.w_type));
    if (weights) {
      std::memcpy(bits.data() + losses * SizeOf(c.w_type), grad.data(), weights * SizeOf(c.w_type));
    }
    Digest(bits.data(), bits.size());
  }

  if (tensor) return;

  // A descent of a few steps, on the same data.
  Descent descent;
  descent.num_steps = rng() % 4;
  std::vector<double> rates(std::max<std::int64_t>(1, descent.num_steps));
  for (double& rate : rates) rate = 0.1 / (1 + c.n) / (1 + c.d) * (1 + rng() % 3);
  descent.rates = rates.data();
  descent.num_rates = rng() % 2 && descent.num_steps > 0 ? descent.num_steps : 1;
  descent.momentum = rng() % 2 * 0.5;
  cuda::Device device = TestDevice();
  if (rng() % 4 == 0) device.cooperative_launch = false;
  const std::int64_t bytes = cuda::DescentWorkspaceBytes(data, descent, device, c.gemm);
  Guarded workspace(bytes + 256, DType::kBFloat16, false), w_out(weights, c.w_type, at_end),
      loss_out(descent.num_steps + 1, c.w_type, at_end);
  void* aligned = reinterpret_cast<void*>(
      (reinterpret_cast<std::uintptr_t>(workspace.data()) + 255) / 256 * 256);
  descent.w = w_out.data();
  descent.losses = loss_out.data();
  const Status status = cuda::ComputeDescent(data, descent, device, nullptr, aligned, bytes, gemm);
  if (!status.ok()) {
    ++failures;
    std::printf("FAILED %s: descent: %s\n", c.Name().c_str(), status.message().c_str());
    return;
  }
  Digest(w_out.data(), weights * SizeOf(c.w_type));
  Digest(loss_out.data(), (descent.num_steps + 1) * SizeOf(c.w_type));
  std::vector<double> now = start, v(weights, 0.0);
  const double descent_eps = (descent.num_steps + 1) * bound;
  for (std::int64_t t = 0; t <= descent.num_steps; ++t) {
    const Truth at = Solve(data, now);
    double total = 0, scale = 0;
    for (std::int64_t j = 0; j < c.k; ++j) {
      total += at.loss[j];
      scale += at.loss_scale[j];
    }
    Expect(c, "descent loss", Get(loss_out.data(), t, c.w_type), total,
           4 * descent_eps * scale + 2 * out_eps * total);
    if (t == descent.num_steps) break;
    const double rate = rates[descent.num_rates == 1 ? 0 : t];
    for (std::int64_t i = 0; i < weights; ++i) {
      v[i] = descent.momentum * v[i] - rate * at.grad[i];
      now[i] += v[i];
    }
  }
  for (std::int64_t i = 0; i < weights; ++i) {
    Expect(c, "descent w", Get(w_out.data(), i, c.w_type), now[i],
           4 * descent_eps * (std::fabs(start[i]) + std::fabs(now[i]) + 1) +
               2 * out_eps * std::fabs(now[i]));
  }
}

// As few rows as the tensor cores' plan has, or a multiple of that, and some.
void RunTensor(Case c, std::int64_t times = 1) {
  Data data;
  c.n = std::int64_t{1} << 30;
  data.shape = {c.n, c.d, c.k, c.intercept};
  data.x_type = c.x_type;
  data.w_type = c.w_type;
  const float one = 1;
  data.sample_weight = c.has_s ? &one : nullptr;
  const cuda::FusedPlan plan = cuda::PlanPass(data, TestDevice());
  c.n = times * 4 * plan.blocks * plan.groups * plan.rows + 5;
  Run(c, true);
}

template <typename T>
T Pick(std::initializer_list<T> values) {
  return values.begin()[rng() % values.size()];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  ptx_runner::machine().ptx_folder = argv[1];
  const int cases = std::atoi(argv[2]);
  ptx_runner::machine().seed = std::strtoull(argv[3], nullptr, 10);
  const DType types[][2] = {
      {DType::kFloat32, DType::kFloat32},   {DType::kFloat64, DType::kFloat64},
      {DType::kFloat16, DType::kFloat16},   {DType::kFloat16, DType::kFloat32},
      {DType::kBFloat16, DType::kBFloat16}, {DType::kBFloat16, DType::kFloat32}};
  for (int i = 0; i < cases && failures < 20; ++i) {
    const auto& type = types[i % 6];
    Case c = {0,
              0,
              0,
              type[0],
              type[1],
              rng() % 2 == 0,
              rng() % 4 != 0,
              rng() % 2 == 0,
              rng() % 2 == 0,
              rng() % 2 == 0};
    c.d = Pick<std::int64_t>({0,  1,   2,   3,   4,   5,   7,   8,   13,  16,   17,   31,   32,  33,
                              64, 100, 128, 129, 200, 255, 256, 257, 512, 1000, 1024, 2048, 3000});
    c.k = Pick<std::int64_t>({1, 1, 1, 2, 3, 4, 5, 8, 9, 16, 17, 33});
    if (i % 25 == 24) c.k = 0;
    const std::int64_t most =
        std::max<std::int64_t>(1, std::min<std::int64_t>(60000, (1 << 16) / (c.d + c.k + 1)));
    c.n = Pick<std::int64_t>({0, 1, 2, 7, 50, most / 8, most / 2, most});
    if (c.d > 1000 && c.k > 4) c.n = std::min<std::int64_t>(c.n, 20);
    Run(c);
  }
  // Rows enough for the tensor cores, of a width for each instance and number of warps to a tile.
  if (cases >= 100) {
    const struct {
      std::int64_t d, k;
      bool bfloat16_only;
    } shapes[] = {{64, 8, false},  {48, 5, false},   {64, 16, false}, {56, 13, false},
                  {128, 7, false}, {200, 16, false}, {256, 8, false}, {400, 11, false},
                  {512, 6, false}, {40, 12, true},   {136, 5, true},  {1000, 12, true},
                  {1024, 8, true}};
    int number = 0;
    for (const auto& type : types) {
      for (const auto& shape : shapes) {
        if (type[0] == DType::kFloat64) continue;
        if (type[0] != DType::kBFloat16 && shape.bfloat16_only) continue;
        ++number;
        RunTensor({0, shape.d, shape.k, type[0], type[1], number % 3 == 0, number % 5 != 0,
                   number % 2 == 0, number % 2 == 0, number % 4 == 0});
      }
    }
  }
  // So many that float32 sums are merged into float64 ones meanwhile.
  if (cases >= 100) {
    ptx_runner::machine().ordinal = 1;
    ptx_runner::machine().multiprocessors = 1;
    RunTensor({0, 32, 8, DType::kBFloat16, DType::kFloat32, true, true, true, true, false},
              cuda::kSegmentRows / 4);
    ptx_runner::machine().ordinal = 0;
    ptx_runner::machine().multiprocessors = 3;
  }
  // Wide rows: the widest that a block holds, and beyond.
  if (cases >= 100) {
    for (const std::int64_t d : {8192, 16383, 16384, 16400}) {
      Run({5, d, 1, DType::kFloat32, DType::kFloat32, true, true, false, false, false});
      Run({5, d, 1, DType::kBFloat16, DType::kFloat32, false, true, true, false, false});
    }
  }
  for (const std::string& fault : ptx_runner::faults().first) std::printf("%s\n", fault.c_str());
  failures += static_cast<int>(ptx_runner::faults().count);
  std::printf("%d cases, %d failures, digest %016llx\n", cases, failures,
              static_cast<unsigned long long>(digest));
  return failures != 0;
}
