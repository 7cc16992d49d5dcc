// The kernels without Python, for sanitizers and other machines. Every variant, on arrays that end
// (and begin) at an unmapped page, so with the least alignment too:
//
//     workers     how threads are called, in check_worker_pool.cc
//     misuse   what does not fit is refused, in check_misuse.cc
//     shapes   against long double truth, over awkward shapes
//     threads  larger problems, for any number of threads; also against truth
//     edges    the same bits for every number of targets, and rows at the edges of tiles
//     descent  a descent against its steps, and that calls end when they are cancelled
//
// Everywhere a result must have the same bits for any number of threads and, with FMA, on every
// instruction set; "bits" hashes the results of "edges", to compare with another machine's.
//
//     check_kernels [quick] [workers] [misuse] [shapes] [threads] [edges] [descent]
//
// All, if none is named.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "host/thread_pool.h"
#include "kernels/l2_loss_grad.h"

namespace lo = linreg_ops;
using lo::DType;

int CheckWorkerPool();  // failures
int CheckMisuse();

namespace {

int failures = 0;

void Fail(const std::string& what) {
  if (++failures <= 20) std::fprintf(stderr, "FAIL %s\n", what.c_str());
}

// ------------------------------------------------------------------ values of every element type

double Get(DType type, const void* p, std::int64_t i) {
  const auto from_bits = [](std::uint32_t bits) {
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  };
  switch (type) {
    case DType::kFloat64: {
      double v;
      std::memcpy(&v, static_cast<const char*>(p) + 8 * i, 8);
      return v;
    }
    case DType::kFloat32: {
      float v;
      std::memcpy(&v, static_cast<const char*>(p) + 4 * i, 4);
      return v;
    }
    case DType::kBFloat16: {
      std::uint16_t v;
      std::memcpy(&v, static_cast<const char*>(p) + 2 * i, 2);
      return from_bits(std::uint32_t{v} << 16);
    }
    case DType::kFloat16: {
      std::uint16_t v;
      std::memcpy(&v, static_cast<const char*>(p) + 2 * i, 2);
      const int exponent = v >> 10 & 31, mantissa = v & 1023;
      const double sign = (v & 0x8000) != 0 ? -1 : 1;
      if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
      if (exponent == 0) return sign * std::ldexp(mantissa, -24);
      return sign * std::ldexp(1024 + mantissa, exponent - 25);
    }
  }
  return 0;
}

// Rounds to the type by trying both neighbours: slow, and unlike the kernels' own conversion.
void Set(DType type, void* p, std::int64_t i, double value) {
  if (type == DType::kFloat64) {
    std::memcpy(static_cast<char*>(p) + 8 * i, &value, 8);
  } else if (type == DType::kFloat32) {
    const float v = static_cast<float>(value);
    std::memcpy(static_cast<char*>(p) + 4 * i, &v, 4);
  } else {
    // Quarters in [-8, 8): exact in every 16-bit type.
    const double q = std::round(std::clamp(value, -7.75, 7.75) * 4) / 4;
    std::uint16_t bits = 0;
    if (type == DType::kBFloat16) {
      const float f = static_cast<float>(q);
      std::uint32_t wide;
      std::memcpy(&wide, &f, 4);
      bits = static_cast<std::uint16_t>(wide >> 16);
    } else if (q != 0) {
      int exponent;
      const double fraction = std::frexp(std::fabs(q), &exponent);  // [0.5, 1)
      bits = static_cast<std::uint16_t>((q < 0 ? 0x8000 : 0) | (exponent + 14) << 10 |
                                        (static_cast<int>(fraction * 2048) & 1023));
    }
    std::memcpy(static_cast<char*>(p) + 2 * i, &bits, 2);
  }
}

double Roundoff(DType type) {
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

// -------------------------------------------------------------- an array between unmapped pages

// `bytes` that end right before an unmapped page, or begin right after one. They are NaNs: what is
// read before it is written shows, and so does what is never written.
class Guarded {
 public:
  Guarded(std::int64_t bytes, bool at_end) {
    const std::int64_t page = sysconf(_SC_PAGESIZE);
    const std::int64_t inner = (bytes + page - 1) / page * page;
    size_ = static_cast<std::size_t>(inner + 2 * page);
    base_ = static_cast<char*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_, static_cast<std::size_t>(page), PROT_NONE);
    mprotect(base_ + page + inner, static_cast<std::size_t>(page), PROT_NONE);
    data_ = base_ + page + (at_end ? inner - bytes : 0);
    std::memset(data_, 0xff, static_cast<std::size_t>(bytes));
  }
  ~Guarded() { munmap(base_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  void* data() const { return data_; }

 private:
  char* base_;
  char* data_;
  std::size_t size_;
};

// ----------------------------------------------------------------------------------- one problem

struct Case {
  std::int64_t n, d, k;
  bool intercept, weights, has_y;
};

std::string Describe(const Case& c, const lo::cpu::Variant& v) {
  return std::string(v.isa) + " x=" + lo::NameOf(v.x_type) + " w=" + lo::NameOf(v.w_type) +
         " n=" + std::to_string(c.n) + " d=" + std::to_string(c.d) + " k=" + std::to_string(c.k) +
         (c.intercept ? " intercept" : "") + (c.weights ? " weights" : "") +
         (c.has_y ? "" : " no y");
}

// Unlike the pool's threads, all of them run the body.
lo::cpu::Threads StdThreads(int count) {
  lo::cpu::Threads threads;
  threads.count = count;
  threads.run = [](void*, int workers, void (*body)(void*), void* arg) {
    std::vector<std::thread> others;
    for (int i = 1; i < workers; ++i) others.emplace_back(body, arg);
    body(arg);
    for (std::thread& thread : others) thread.join();
  };
  return threads;
}

struct Arrays {
  Case c;
  DType x_type, w_type;
  Guarded x, w, y, s;

  Arrays(const Case& cs, DType xt, DType wt, bool at_end, unsigned seed)
      : c(cs),
        x_type(xt),
        w_type(wt),
        x(Bytes(xt, c.n * c.d), at_end),
        w(Bytes(wt, (c.d + c.intercept) * c.k), at_end),
        y(Bytes(wt, c.n * c.k), at_end),
        s(Bytes(wt, c.n), at_end) {
    // In [-4, 4), and the same on every machine, whatever its mathematical library.
    std::mt19937 random(seed);
    const auto next = [&random] { return static_cast<std::int32_t>(random()) * 0x1p-29; };
    for (std::int64_t i = 0; i < c.n * c.d; ++i) Set(xt, x.data(), i, next());
    for (std::int64_t i = 0; i < (c.d + c.intercept) * c.k; ++i) Set(wt, w.data(), i, next());
    for (std::int64_t i = 0; i < c.n * c.k; ++i) Set(wt, y.data(), i, next());
    for (std::int64_t i = 0; i < c.n; ++i) Set(wt, s.data(), i, std::fabs(next()));
  }

  static std::int64_t Bytes(DType type, std::int64_t count) {
    return static_cast<std::int64_t>(lo::SizeOf(type)) * count;
  }

  lo::Data data() const {
    lo::Data data;
    data.shape = {c.n, c.d, c.k, c.intercept};
    data.x_type = x_type;
    data.w_type = w_type;
    data.x = x.data();
    data.w = w.data();
    data.y = c.has_y ? y.data() : nullptr;
    data.sample_weight = c.weights ? s.data() : nullptr;
    return data;
  }
};

// Loss per target and gradient, as bytes in arrays that end at an unmapped page.
struct Result {
  std::string loss, grad;
};

using Kind = lo::cpu::Call::Kind;

lo::cpu::Call Planned(Kind kind, const lo::Data& data, int threads, const char* isa) {
  lo::cpu::Call call;
  const lo::Status status = lo::cpu::Call::Make(kind, data, threads, isa, &call);
  if (!status.ok()) Fail(status.message());
  return call;
}

Result Compute(const Arrays& arrays, const char* isa, const lo::cpu::Threads& threads) {
  const Case& c = arrays.c;
  const lo::Data data = arrays.data();
  const Guarded loss(Arrays::Bytes(arrays.w_type, c.k), true);
  const Guarded grad(Arrays::Bytes(arrays.w_type, (c.d + c.intercept) * c.k), true);
  const lo::cpu::Call call = Planned(Kind::kLossGrad, data, threads.count, isa);
  const std::int64_t bytes = call.workspace_bytes();
  const Guarded workspace((bytes + 63) / 64 * 64, true);
  lo::LossGrad out;
  out.loss = loss.data();
  out.loss_per_target = true;
  out.grad = grad.data();
  const lo::Status status = call.Run(data, out, threads, workspace.data(), bytes);
  if (!status.ok()) Fail(status.message());
  const auto text = [](const Guarded& array, std::int64_t size) {
    return std::string(static_cast<const char*>(array.data()), static_cast<std::size_t>(size));
  };
  return {text(loss, Arrays::Bytes(arrays.w_type, c.k)),
          text(grad, Arrays::Bytes(arrays.w_type, (c.d + c.intercept) * c.k))};
}

// Truth and bound: as tests/oracles.py has them.
struct Truth {
  using Real = long double;

  explicit Truth(const Arrays& arrays)
      : grad(static_cast<std::size_t>((arrays.c.d + arrays.c.intercept) * arrays.c.k)),
        reach(grad.size()),
        spread(grad.size()),
        loss(static_cast<std::size_t>(arrays.c.k)),
        slack(loss.size()) {
    const Case& c = arrays.c;
    const std::int64_t bias = c.intercept ? 1 : 0, rows = c.d + bias;
    const Real u = Unit(arrays);
    for (std::int64_t i = 0; i < c.n; ++i) {
      const Real s = c.weights ? Get(arrays.w_type, arrays.s.data(), i) : 1;
      for (std::int64_t t = 0; t < c.k; ++t) {
        const auto w = [&](std::int64_t j) {
          return Get(arrays.w_type, arrays.w.data(), j * c.k + t);
        };
        const auto x = [&](std::int64_t j) {
          return j < bias ? 1 : Get(arrays.x_type, arrays.x.data(), i * c.d + j - bias);
        };
        const Real y = c.has_y ? Get(arrays.w_type, arrays.y.data(), i * c.k + t) : 0;
        Real r = -y, sum = std::fabs(y);
        for (std::int64_t j = 0; j < rows; ++j) {
          r += Real{x(j)} * w(j);
          sum += std::fabs(Real{x(j)} * w(j));
        }
        const Real dr = static_cast<Real>(c.d + 2) * u * sum;
        loss[static_cast<std::size_t>(t)] += s * r * r / 2;
        slack[static_cast<std::size_t>(t)] += s * (std::fabs(r) * dr + dr * dr);
        for (std::int64_t j = 0; j < rows; ++j) {
          const auto at = static_cast<std::size_t>(j * c.k + t);
          grad[at] += s * r * x(j);
          reach[at] += std::fabs(s * r * x(j));
          spread[at] += std::fabs(x(j)) * s * dr;
        }
      }
    }
  }

  static Real Unit(const Arrays& arrays) {
    return arrays.x_type == DType::kFloat64 ? 0x1p-53L : 0x1p-24L;
  }

  std::vector<Real> grad, reach, spread, loss, slack;
};

void CheckAgainstTruth(const Arrays& arrays, const Truth& truth, const Result& result,
                       const std::string& what) {
  using Real = Truth::Real;
  const Real u_out = Roundoff(arrays.w_type), u = Truth::Unit(arrays);
  const Real chain = static_cast<Real>(std::min<std::int64_t>(arrays.c.n, 512));
  const auto overflows = [&](Real got, Real exact) {
    return arrays.w_type == DType::kFloat16 && std::fabs(exact) > 65504 &&
           got == std::copysign(Real{INFINITY}, exact);
  };
  for (std::size_t at = 0; at < truth.loss.size(); ++at) {
    const Real got = Get(arrays.w_type, result.loss.data(), static_cast<std::int64_t>(at));
    const Real exact = truth.loss[at];
    if (overflows(got, exact)) continue;
    // The loss is summed in double: exact enough for narrower types, a chain of its own for double.
    const Real terms = arrays.w_type == DType::kFloat64 ? chain : 4;
    if (!(std::fabs(got - exact) <= truth.slack[at] + (terms * u + u_out) * exact + 1e-37L)) {
      return Fail(what + ": loss " + std::to_string(static_cast<double>(got)) + " needs " +
                  std::to_string(static_cast<double>(exact)));
    }
  }
  for (std::size_t at = 0; at < truth.grad.size(); ++at) {
    const Real got = Get(arrays.w_type, result.grad.data(), static_cast<std::int64_t>(at));
    const Real exact = truth.grad[at];
    if (overflows(got, exact)) continue;
    const Real bound =
        truth.spread[at] + chain * u * truth.reach[at] + u_out * std::fabs(exact) + 1e-37L;
    if (!(std::fabs(got - exact) <= bound)) {
      return Fail(what + ": grad[" + std::to_string(at) + "] " +
                  std::to_string(static_cast<double>(got)) + " needs " +
                  std::to_string(static_cast<double>(exact)));
    }
  }
}

// What nobody wrote is NaN, as Guarded memory is, and the same in every call.
void CheckWritten(const Arrays& arrays, const Result& result, const std::string& what) {
  for (const std::string* bytes : {&result.loss, &result.grad}) {
    const auto count = static_cast<std::int64_t>(bytes->size()) / Arrays::Bytes(arrays.w_type, 1);
    for (std::int64_t at = 0; at < count; ++at) {
      if (std::isnan(Get(arrays.w_type, bytes->data(), at))) {
        return Fail(what + (bytes == &result.loss ? ": loss[" : ": grad[") + std::to_string(at) +
                    "] is not a number");
      }
    }
  }
}

std::uint64_t Hash(std::uint64_t hash, const std::string& bytes) {  // FNV-1a
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return hash;
}

// The supported variants, those of the same types together.
std::vector<std::vector<lo::cpu::Variant>> VariantsByTypes() {
  std::vector<std::vector<lo::cpu::Variant>> groups;
  for (const lo::cpu::Variant& variant : lo::cpu::Variants()) {
    if (!variant.supported) continue;
    const auto same = [&](const std::vector<lo::cpu::Variant>& group) {
      return group[0].x_type == variant.x_type && group[0].w_type == variant.w_type;
    };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) {
      groups.push_back({variant});
    } else {
      found->push_back(variant);
    }
  }
  return groups;
}

// Returns the hash of what the instruction sets with FMA agree on.
std::uint64_t CheckCase(const Case& c, bool truth, const std::vector<int>& thread_counts) {
  static const std::vector<std::vector<lo::cpu::Variant>> groups = VariantsByTypes();
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::vector<lo::cpu::Variant>& group : groups) {
    const Arrays at_end(c, group[0].x_type, group[0].w_type, true, 7);
    const Arrays at_begin(c, group[0].x_type, group[0].w_type, false, 7);
    const std::optional<Truth> exact = truth ? std::optional<Truth>(at_end) : std::nullopt;
    std::optional<Result> fused;
    for (const lo::cpu::Variant& variant : group) {
      const std::string what = Describe(c, variant);
      const Result first = Compute(at_end, variant.isa, {});
      if (exact) {
        CheckAgainstTruth(at_end, *exact, first, what);
      } else {
        CheckWritten(at_end, first, what);
      }
      for (const Arrays* arrays : {&at_end, &at_begin}) {
        const auto check = [&](const lo::cpu::Threads& threads, const char* whose) {
          const Result result = Compute(*arrays, variant.isa, threads);
          if (result.loss != first.loss || result.grad != first.grad) {
            Fail(what + ": other bits with " + std::to_string(threads.count) + whose +
                 " threads, or another alignment");
          }
        };
        if (arrays != &at_end) check({}, "");
        for (const int threads : thread_counts) {
          check(StdThreads(threads), " std");
          check(lo::PoolThreads(threads), " pool");
        }
      }
      if (std::strcmp(variant.isa, "scalar") == 0) continue;  // without FMA
      if (!fused) {
        fused = first;
        hash = Hash(Hash(hash, first.loss), first.grad);
      } else if (fused->loss != first.loss || fused->grad != first.grad) {
        Fail(what + ": other bits than another instruction set");
      }
    }
  }
  return hash;
}

// A descent is its steps, bit for bit, for any number of threads.
template <class C>
void CheckDescent(const Case& c, double momentum, const char* isa) {
  const DType type = sizeof(C) == 8 ? DType::kFloat64 : DType::kFloat32;
  Arrays arrays(c, type, type, true, 11);
  const lo::Data data = arrays.data();
  const std::int64_t steps = 4, size = (c.d + c.intercept) * c.k;
  const std::vector<double> rates = {0.01 / static_cast<double>(c.n + 1),
                                     0.02 / static_cast<double>(c.n + 1), 1e-3, 1e-4};
  std::vector<C> w(static_cast<std::size_t>(size)), v(w.size()), grad(w.size());
  if (size > 0) std::memcpy(w.data(), arrays.w.data(), w.size() * sizeof(C));
  std::vector<C> losses;
  for (std::int64_t t = 0; t <= steps; ++t) {
    lo::Data at = data;
    at.w = w.data();
    C loss;
    lo::LossGrad out;
    out.loss = &loss;
    out.grad = grad.data();
    const lo::cpu::Call call = Planned(Kind::kLossGrad, at, 1, isa);
    const std::int64_t bytes = call.workspace_bytes();
    const Guarded workspace((bytes + 63) / 64 * 64, true);
    if (!call.Run(at, out, {}, workspace.data(), bytes).ok()) Fail("a step of a descent");
    losses.push_back(loss);
    if (t == steps) break;
    for (std::size_t i = 0; i < w.size(); ++i) {
      v[i] = static_cast<C>(momentum) * v[i] -
             static_cast<C>(rates[static_cast<std::size_t>(t)]) * grad[i];
      w[i] += v[i];
    }
  }
  for (const int threads : {1, 2, 3, 5}) {
    std::vector<C> got_w(w.size(), C{NAN}), got(losses.size(), C{NAN});
    lo::Descent descent;
    descent.num_steps = steps;
    descent.rates = rates.data();
    descent.num_rates = steps;
    descent.momentum = momentum;
    descent.w = got_w.data();
    descent.losses = got.data();
    const lo::cpu::Call call = Planned(Kind::kDescent, data, threads, isa);
    const std::int64_t bytes = call.workspace_bytes();
    const Guarded workspace((bytes + 63) / 64 * 64, true);
    const lo::Status status =
        call.Run(data, descent, threads % 2 == 0 ? lo::PoolThreads(threads) : StdThreads(threads),
                 workspace.data(), bytes);
    if (!status.ok()) Fail(status.message());
    if (got != losses || got_w != w) {
      Fail("descent " + Describe(c, {isa, type, type, true}) + " with " + std::to_string(threads) +
           " threads differs from its steps");
    }
  }
}

// Says that it is cancelled from the `left`-th time on that any thread asks.
struct Countdown {
  std::atomic<int> left;
  std::atomic<int> asked{0};
  static bool Reached(void* self) {
    Countdown& c = *static_cast<Countdown*>(self);
    ++c.asked;
    return c.left.fetch_sub(1) <= 1;
  }
};

// Passes over long X ask while they run, in slots and rounds and for few targets; descents between
// steps; and none goes on when it has heard.
void CheckCancellation() {
  for (const Case& c : std::vector<Case>{{600'000, 30, 1, false, true, true},
                                         {200'000, 30, 3, true, true, true},
                                         {60'000, 20, 17, false, true, true},
                                         {700, 300, 100, false, true, true},
                                         {1000, 10, 1, false, true, true}}) {
    const bool descent = c.n == 1000;
    Arrays arrays(c, DType::kFloat32, DType::kFloat32, true, 5);
    const lo::Data data = arrays.data();
    std::vector<float> w(static_cast<std::size_t>((c.d + c.intercept) * c.k)), losses(1001);
    const double rate = 0;
    const auto run = [&](Countdown& countdown, int threads) {
      const lo::cpu::Call call =
          Planned(descent ? Kind::kDescent : Kind::kLossGrad, data, threads, nullptr);
      const std::int64_t bytes = call.workspace_bytes();
      const Guarded workspace((bytes + 63) / 64 * 64, true);
      if (descent) {
        lo::Descent d;
        d.num_steps = 1000;
        d.rates = &rate;
        d.w = w.data();
        d.losses = losses.data();
        d.cancelled = Countdown::Reached;
        d.cancelled_context = &countdown;
        return call.Run(data, d, StdThreads(threads), workspace.data(), bytes);
      }
      lo::LossGrad out;
      out.loss = losses.data();
      out.grad = w.data();
      out.cancelled = Countdown::Reached;
      out.cancelled_context = &countdown;
      return call.Run(data, out, StdThreads(threads), workspace.data(), bytes);
    };
    const std::string what = "cancellation of n=" + std::to_string(c.n);
    for (const int threads : {1, 3}) {
      Countdown never{{1 << 30}};
      if (const lo::Status s = run(never, threads); !s.ok()) Fail(what + ": " + s.message());
      if (never.asked < 8) Fail(what + ": asked " + std::to_string(never.asked) + " times");
      for (const int left : {1, 2, 7}) {
        Countdown countdown{{left}};
        if (run(countdown, threads).code() != lo::Status::Code::kCancelled) {
          Fail(what + ": went on after call " + std::to_string(left));
        }
        if (countdown.asked > left + threads) Fail(what + ": asked again");
      }
    }
  }
}

void CheckShapes(bool quick) {
  const std::vector<std::int64_t> features = {0,  1,  2,  3,  4,  5,  6,  7,   8,   9,   13,  15,
                                              16, 17, 24, 31, 32, 33, 64, 100, 129, 300, 1025};
  for (const std::int64_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 130, 600}) {
    for (const std::int64_t d : features) {
      if (n * d > (quick ? 4000 : 40000)) continue;
      for (const std::int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33}) {
        if (quick && (k == 6 || k == 16 || n == 15)) continue;
        CheckCase({n, d, k, k % 2 == 1, (n + d + k) % 2 == 1, (n + d) % 5 != 0}, true, {});
      }
    }
  }
}

// Equal terms, which have an engine of their own.
void CheckOnes() {
  for (const std::int64_t n : {1, 600, 100'003})
    CheckCase({n, 0, 3, true, false, false}, true, {2});
}

void CheckThreads(bool quick) {
  for (const Case& c : std::vector<Case>{{40003, 1, 1, true, true, true},
                                         {40003, 3, 1, false, true, true},
                                         {20001, 17, 1, true, false, true},
                                         {1001, 300, 1, true, true, true},
                                         {37, 20011, 1, false, false, true},
                                         {3, 70001, 1, false, true, true},
                                         {20001, 5, 4, true, true, true},
                                         {8001, 33, 8, true, true, true},
                                         {2003, 40, 17, true, true, true},
                                         {2017, 15, 9, true, false, true},  // a short slot
                                         {2501, 33, 45, false, true, true},
                                         {2101, 100, 45, true, true, true},  // sums in two tasks
                                         {1501, 40, 50, true, true, true},   // two rounds
                                         {2101, 200, 180, true, true, true},
                                         {2101, 400, 400, true, true, true},
                                         {20, 70, 500, true, true, true}}) {
    if (quick && c.n * c.d * c.k > 10'000'000) continue;
    const bool truth = !quick || c.k == 1 || c.n * c.d * c.k < 1'000'000;  // long double takes time
    CheckCase(c, truth, quick ? std::vector<int>{3} : std::vector<int>{2, 3, 7});
  }
}

void CheckEdges(bool quick) {
  const std::vector<std::int64_t> targets = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                             12, 13, 14, 15, 16, 17, 18, 19, 20, 64, 200};
  // Around 128, 252 and 512: rows of tiles and chunks, and what is left over after many.
  const std::vector<std::int64_t> rows = {127, 128, 129, 251, 252, 253, 511, 512, 513, 2017, 2021};
  std::size_t next = 0;
  std::uint64_t hash = 0;
  for (const std::int64_t k : targets) {
    for (const std::int64_t d : {1, 3, 8, 9, 17, 65}) {
      for (int repeat = 0; repeat < (quick ? 1 : static_cast<int>(rows.size())); ++repeat, ++next) {
        const bool intercept = next % 2 == 1, weights = next / 2 % 2 == 1;
        const Case c = {rows[next % rows.size()], d, k, intercept, weights, next % 7 != 0};
        hash = hash * 31 + CheckCase(c, false, quick ? std::vector<int>{} : std::vector<int>{3});
      }
    }
  }
  std::printf("bits %016llx\n", static_cast<unsigned long long>(hash));
}

void CheckDescents() {
  for (const lo::cpu::Isa& isa : lo::cpu::Isas()) {
    if (!isa.supported) continue;
    for (const Case& c : std::vector<Case>{{50, 2, 1, false, false, true},
                                           {50, 1, 1, true, true, true},
                                           {700, 10, 3, true, false, true},
                                           {700, 10, 1, true, false, true},
                                           {333, 16, 1, false, true, true},
                                           {15, 9, 1, true, true, false},
                                           {5000, 13, 1, false, false, true},
                                           {30001, 40, 1, true, true, true},
                                           {301, 12, 11, true, true, true},
                                           {0, 3, 1, false, false, true},
                                           {5, 0, 2, true, false, true}}) {
      for (const double momentum : {0.0, 0.9}) {
        CheckDescent<float>(c, momentum, isa.name);
        CheckDescent<double>(c, momentum, isa.name);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  std::vector<std::string> parts;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "quick") {
      quick = true;
    } else {
      parts.emplace_back(argv[i]);
    }
  }
  if (parts.empty()) parts = {"workers", "misuse", "shapes", "threads", "edges", "descent"};
  for (const std::string& part : parts) {
    if (part == "workers") {
      failures += CheckWorkerPool();
    } else if (part == "misuse") {
      failures += CheckMisuse();
    } else if (part == "shapes") {
      CheckShapes(quick);
      CheckOnes();
    } else if (part == "threads") {
      CheckThreads(quick);
    } else if (part == "edges") {
      CheckEdges(quick);
    } else if (part == "descent") {
      CheckCancellation();
      CheckDescents();
    } else {
      Fail("there is no part named " + part);
    }
    std::printf("%s done, %d failures\n", part.c_str(), failures);
    std::fflush(stdout);
  }
  std::printf("%s: %d failures\n", failures == 0 ? "OK" : "FAILED", failures);
  return failures == 0 ? 0 : 1;
}
