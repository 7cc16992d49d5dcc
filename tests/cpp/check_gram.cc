// The Gram engine without Python, in every instruction set that runs here: sums of integers, which
// are exact; folds, batches, threads and merges, which change no bit; and the bits on record, also
// of instruction sets in an emulation. ./check_gram
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/gram.h"

namespace lo = linreg_ops;
using lo::DType;
using std::int64_t;

namespace {

int failures = 0;

void Check(bool good, const std::string& what) {
  if (good) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
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

class Workspace {
 public:
  explicit Workspace(int64_t bytes) : bytes_(bytes), memory_(bytes / 64 + 2) {}
  void* data() {
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
    return reinterpret_cast<void*>((at + 63) / 64 * 64);
  }
  int64_t bytes() const { return bytes_; }

 private:
  struct Line {
    char bytes[64];
  };
  int64_t bytes_;
  std::vector<Line> memory_;
};

struct State {
  State(int64_t d, int64_t k, int64_t folds, double shift)
      : sums(folds * 2 * lo::GramSumsSize(d, k)),
        pending(folds * lo::kGramBlockRows * (d + k + 1)),
        rows(folds),
        scale(d + k, 1.0),
        offset(d + k, -shift),
        c{{d, k, folds}, sums.data(), pending.data(), rows.data(), scale.data(), offset.data()} {}

  std::vector<double> sums, pending;
  std::vector<int64_t> rows;
  std::vector<double> scale, offset;
  lo::GramState c;
};

struct Result {
  explicit Result(const State& s)
      : xx(s.c.shape.d * s.c.shape.d),
        xy(s.c.shape.d * s.c.shape.k),
        yy(s.c.shape.k),
        x_sum(s.c.shape.d),
        y_sum(s.c.shape.k) {}

  std::vector<double> xx, xy, yy, x_sum, y_sum;
  double weight = 0;

  std::string Bytes() const {
    std::string bytes;
    for (const auto* part : {&xx, &xy, &yy, &x_sum, &y_sum}) {
      bytes.append(reinterpret_cast<const char*>(part->data()), part->size() * sizeof(double));
    }
    return bytes.append(reinterpret_cast<const char*>(&weight), sizeof(weight));
  }
};

Result Sum(const State& state, const char* isa, int threads) {
  Result r(state);
  std::vector<int64_t> folds;
  for (int64_t f = 0; f < state.c.shape.folds; ++f) folds.push_back(f);
  Workspace workspace(lo::cpu::GramSumWorkspaceBytes(state.c, threads));
  const lo::Status status = lo::cpu::GramSum(
      state.c, folds.data(), state.c.shape.folds,
      {r.xx.data(), r.xy.data(), r.yy.data(), r.x_sum.data(), r.y_sum.data(), &r.weight},
      StdThreads(threads), workspace.data(), workspace.bytes(), isa);
  Check(status.ok(), status.message());
  return r;
}

// Small integers, or numbers whose sums round.
template <class T>
struct Data {
  Data(int64_t n, int64_t d, int64_t k, bool round) : n(n), d(d), k(k), fold(n) {
    std::uint32_t seed = 1;
    const auto next = [&] {
      seed = seed * 1664525 + 1013904223;
      const int number = static_cast<int>(seed >> 8);
      return static_cast<T>(round ? (number - (1 << 23)) / 1048576.0 : number % 17 - 8);
    };
    for (auto* part : {&x, &y, &s}) {
      const int64_t columns = part == &x ? d : part == &y ? k : 1;
      for (int64_t i = 0; i < n * columns; ++i) part->push_back(next());
      part->shrink_to_fit();  // a sanitizer sees what is read beyond
    }
    for (int64_t i = 0; i < n; ++i) fold[i] = i * i % 3;
  }

  void Append(State* state, int64_t begin, int64_t end, const char* isa, int threads) const {
    lo::GramBatch batch;
    batch.n = end - begin;
    batch.x_type = batch.y_type = batch.weight_type =
        sizeof(T) == 4 ? DType::kFloat32 : DType::kFloat64;
    batch.x = x.data() + begin * d;
    batch.y = y.data() + begin * k;
    batch.sample_weight = s.data() + begin;
    batch.fold = state->c.shape.folds > 1 ? fold.data() + begin : nullptr;
    Workspace workspace(lo::cpu::GramUpdateWorkspaceBytes(state->c, batch.n, threads));
    const lo::Status status = lo::cpu::GramUpdate(state->c, batch, {}, StdThreads(threads),
                                                  workspace.data(), workspace.bytes(), isa);
    Check(status.ok(), status.message());
  }

  int64_t n, d, k;
  std::vector<T> x, y, s;
  std::vector<int64_t> fold;
};

template <class T>
std::string BitsOf(const Data<T>& data, int64_t folds, int64_t batch, const char* isa,
                   int threads) {
  State state(data.d, data.k, folds, 1.0 / 3);
  for (int64_t i = 0; i < data.n; i += batch) {
    data.Append(&state, i, std::min(i + batch, data.n), isa, threads);
  }
  return Sum(state, isa, threads).Bytes();
}

template <class T>
void CheckTruth(int64_t n, int64_t d, int64_t k, const char* isa) {
  const std::string what = std::string(isa) + " " + std::to_string(n) + " x " + std::to_string(d) +
                           " x " + std::to_string(k);
  const Data<T> data(n, d, k, false);
  State state(d, k, 3, 0.0), other(d, k, 3, 0.0);
  data.Append(&state, 0, n / 3, isa, 2);
  data.Append(&other, n / 3, n, isa, 2);
  Workspace workspace(lo::cpu::GramUpdateWorkspaceBytes(state.c, lo::kGramBlockRows, 2));
  const lo::Status status =
      lo::cpu::GramMerge(state.c, other.c, StdThreads(2), workspace.data(), workspace.bytes(), isa);
  Check(status.ok(), what + status.message());
  const Result r = Sum(state, isa, 2);
  const auto sum = [&](const auto& term) {
    double total = 0;
    for (int64_t i = 0; i < n; ++i) total += static_cast<double>(data.s[i]) * term(i);
    return total;
  };
  const auto x = [&](int64_t j) { return [&, j](int64_t i) { return data.x[i * d + j]; }; };
  const auto y = [&](int64_t t) { return [&, t](int64_t i) { return data.y[i * k + t]; }; };
  for (int64_t j = 0; j < d; ++j) {
    for (int64_t l = 0; l < d; ++l) {
      Check(r.xx[j * d + l] == sum([&](int64_t i) { return x(j)(i) * x(l)(i); }), what + " xx");
    }
    for (int64_t t = 0; t < k; ++t) {
      Check(r.xy[j * k + t] == sum([&](int64_t i) { return x(j)(i) * y(t)(i); }), what + " xy");
    }
    Check(r.x_sum[j] == sum(x(j)), what + " x_sum");
  }
  for (int64_t t = 0; t < k; ++t) {
    Check(r.yy[t] == sum([&](int64_t i) { return y(t)(i) * y(t)(i); }), what + " yy");
    Check(r.y_sum[t] == sum(y(t)), what + " y_sum");
  }
  Check(r.weight == sum([](int64_t) { return 1; }), what + " weight");
}

std::uint64_t Hash(std::uint64_t hash, const std::string& bytes) {  // FNV-1a
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211u;
  return hash;
}

template <class T>
std::uint64_t CheckBits(std::uint64_t hash, int64_t n, int64_t d, int64_t k, const char* isa) {
  const Data<T> data(n, d, k, true);
  for (const int64_t folds : {1, 3}) {
    const std::string expected = BitsOf(data, folds, n, isa, 1);
    for (const int threads : {1, 3}) {
      Check(BitsOf(data, folds, 700, isa, threads) == expected, std::string(isa) + " batches");
      Check(BitsOf(data, folds, n, isa, threads) == expected, std::string(isa) + " threads");
    }
    hash = Hash(hash, expected);
  }
  return hash;
}

}  // namespace

int main() {
  constexpr std::uint64_t kOnRecord = 8620049603695323302u;
  for (const lo::cpu::Isa& isa : lo::cpu::Isas()) {
    if (!isa.supported) continue;
    for (const int64_t n : {1, 1024, 3500}) {
      CheckTruth<float>(n, 9, 3, isa.name);
      CheckTruth<double>(n, 3, 17, isa.name);
      CheckTruth<float>(n, 17, 73, isa.name);  // several panels of either, several groups of Y
      CheckTruth<double>(n, 0, 2, isa.name);
    }
    CheckTruth<float>(1500, 211, 40, isa.name);
    CheckTruth<float>(1100, 390, 10, isa.name);  // threads share a block
    std::uint64_t hash = 14695981039346656037u;
    hash = CheckBits<float>(hash, 4000, 21, 2, isa.name);
    hash = CheckBits<double>(hash, 1500, 211, 40, isa.name);
    hash = CheckBits<float>(hash, 4000, 5, 1, isa.name);  // few columns, and the least
    hash = CheckBits<double>(hash, 2100, 1, 0, isa.name);
    hash = CheckBits<double>(hash, 2100, 8, 4, isa.name);
    const bool fused = std::strcmp(isa.name, "scalar") != 0;
    Check(!fused || hash == kOnRecord,
          std::string(isa.name) + " has other bits: " + std::to_string(hash));
  }
  std::printf("%s: %d failures\n", failures == 0 ? "OK" : "FAILED", failures);
  return failures == 0 ? 0 : 1;
}
