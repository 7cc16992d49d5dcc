// The kernel API called with what a fuzzer makes up: shapes, sizes, plans, passes over small
// arrays, and the Gram engine on states of any content. An answer is right or an error; arrays are
// as long as they must be, on the heap, where AddressSanitizer sees what is read or written beyond
// them.
//
// By libFuzzer (clang), with what it finds new kept in a folder; or, built without it, over the
// inputs of a folder, as CI does, or over random ones, of which libFuzzer makes few, in one process
// that must not grow (CONTRIBUTING.md has the commands):
//
//     fuzz_kernels -max_total_time=600 /tmp/found tests/cpp/corpus
//     replay_kernels tests/cpp/corpus
//     replay_kernels --random 10000000 [SEED [FIRST]]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "host/shape_rules.h"
#include "host/thread_pool.h"
#include "kernels/gram.h"
#include "kernels/l2_loss_grad.h"
#include "kernels/sizes.h"

namespace lo = linreg_ops;
using lo::DType;
using std::int64_t;

namespace {

int64_t calls = 0;  // of the kernel API

// What the fuzzer made up, piece by piece; zeros when it is used up.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  int Byte() { return at_ == end_ ? 0 : *at_++; }
  int Below(int n) { return Byte() % n; }
  bool Flag() { return Byte() % 2 == 1; }
  int64_t Number() {
    std::uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | static_cast<std::uint64_t>(Byte());
    return static_cast<int64_t>(bits);
  }
  // A size that somebody might pass: small, at the edge of what there is, or any.
  int64_t Size() {
    constexpr int64_t kEdges[] = {-1,
                                  int64_t{1} << 31,
                                  int64_t{1} << 32,
                                  (int64_t{1} << 55) + 1,
                                  int64_t{1} << 56,
                                  int64_t{1} << 62,
                                  std::numeric_limits<int64_t>::max(),
                                  std::numeric_limits<int64_t>::min()};
    const int kind = Byte();
    if (kind < 200) return kind % 70;
    if (kind < 250) return kEdges[kind % 8];
    return Number();
  }
  bool used_up() const { return at_ == end_; }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

[[noreturn]] void Fault(const char* what, const std::string& detail = "") {
  std::fprintf(stderr, "FAULT %s %s\n", what, detail.c_str());
  std::abort();
}

constexpr DType kTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16};

// As many elements as there must be, from an address that suits the element type alone.
class Array {
 public:
  Array(DType type, int64_t count, int shift)
      : type_(type),
        size_(static_cast<int64_t>(lo::SizeOf(type))),
        count_(count),
        begin_(shift * size_),
        bytes_(new char[static_cast<std::size_t>(begin_ + count * size_)]) {}

  // Small integers, of which every engine makes the same sums; or any bits.
  Array& Fill(Input* in, bool integers) {
    for (int64_t i = 0; i < count_; ++i) {
      if (integers) {
        Set(i, in->Below(7) - 3);
      } else {
        for (int64_t b = 0; b < size_; ++b) data()[i * size_ + b] = static_cast<char>(in->Byte());
      }
    }
    return *this;
  }
  void Set(int64_t i, int value) {
    const double d = value;
    const float f = static_cast<float>(value);
    std::uint32_t bits;
    std::memcpy(&bits, &f, 4);
    std::uint16_t half = static_cast<std::uint16_t>(bits >> 16);  // bfloat16: 8 bits are enough
    if (type_ == DType::kFloat16) {
      int exponent;
      const double fraction = std::frexp(std::fabs(d), &exponent);
      half = value == 0
                 ? 0
                 : static_cast<std::uint16_t>((value < 0 ? 0x8000 : 0) | (exponent + 14) << 10 |
                                              (static_cast<int>(fraction * 2048) & 1023));
    }
    const void* const from = type_ == DType::kFloat64   ? static_cast<const void*>(&d)
                             : type_ == DType::kFloat32 ? static_cast<const void*>(&f)
                                                        : static_cast<const void*>(&half);
    std::memcpy(data() + i * size_, from, static_cast<std::size_t>(size_));
  }
  // Zeros of either sign are one.
  bool Equals(const Array& other) const {
    for (int64_t i = 0; i < count_ * size_; i += size_) {
      const char *a = data() + i, *b = other.data() + i;
      if (std::memcmp(a, b, static_cast<std::size_t>(size_)) == 0) continue;
      for (int64_t byte = 0; byte < size_; ++byte) {
        const int mask = byte + 1 == size_ ? 0x7f : 0xff;
        if (((a[byte] | b[byte]) & mask) != 0) return false;
      }
    }
    return true;
  }
  char* data() { return bytes_.get() + begin_; }
  const char* data() const { return bytes_.get() + begin_; }

 private:
  DType type_;
  int64_t size_, count_, begin_;
  std::unique_ptr<char[]> bytes_;
};

// 64-byte aligned, uninitialised but for NaNs, and no longer than asked for.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) : bytes_(bytes) {
    data_ = std::aligned_alloc(
        64, static_cast<std::size_t>(std::max<int64_t>(bytes, 1) + 63) / 64 * 64);
    if (data_ == nullptr) Fault("no memory for the harness");
    std::memset(data_, 0xff, static_cast<std::size_t>(bytes));
  }
  ~Workspace() { std::free(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_;
  void* data_;
};

// ------------------------------------------------------------------------------------ shape rules

void TryShapes(Input* in) {
  int64_t sizes[4][5];
  const auto shape = [&](int number) {
    const int rank = in->Below(7) - 1;
    for (int i = 0; i < rank; ++i) sizes[number][i] = in->Size();
    return rank < 0 ? lo::ArrayShape() : lo::ArrayShape(sizes[number], rank);
  };
  lo::ProblemShapes given;
  given.x = shape(0);
  given.w = shape(1);
  if (in->Flag()) given.y = shape(2);
  if (in->Flag()) given.sample_weight = shape(3);
  given.intercept = in->Flag();
  given.batches = in->Flag();
  lo::ProblemSizes found;
  ++calls;
  const lo::Status status = lo::CheckShapes(given, &found);
  if (!status.ok()) {
    if (status.message().empty()) Fault("an error without words");
    return;
  }
  if (given.x.rank == 2 && (found.w_rank == 1 || found.w_rank == 2) &&
      (found.shape.n != given.x.sizes[0] || found.shape.d != given.x.sizes[1]) &&
      given.x.sizes[0] != lo::kUnknown && given.x.sizes[1] != lo::kUnknown) {
    Fault("other sizes than x has");
  }
  if (given.y && given.y->rank >= 1 && given.w.rank == given.y->rank && given.x.rank == 2) {
    const int64_t n = given.y->sizes[0];
    if (n != lo::kUnknown && found.shape.n != n) Fault("another n than y has");
  }
  const int64_t steps = in->Size();
  calls += 2;
  (void)lo::CheckRates(shape(0), in->Flag() ? std::optional<int64_t>(steps) : std::nullopt);
  (void)lo::CheckScalar("momentum", shape(1));
}

// ------------------------------------------------------------------------------ validation, plans

void TryPlan(Input* in) {
  lo::Data data;
  data.shape = {in->Size(), in->Size(), in->Size(), in->Flag()};
  data.x_type = kTypes[in->Below(4)];
  data.w_type = kTypes[in->Below(4)];
  const char something = 0;  // no array is read
  const auto pointer = [&] { return in->Below(8) == 0 ? nullptr : &something; };
  data.x = pointer();
  data.w = pointer();
  data.y = pointer();
  data.sample_weight = pointer();
  const int threads = in->Below(4) == 3 ? 4096 : 1 + in->Below(9);
  const auto isas = lo::cpu::Isas();
  const char* isa = isas[static_cast<std::size_t>(in->Byte()) % isas.size()].name;
  const auto kind = in->Flag() ? lo::cpu::Call::Kind::kDescent : lo::cpu::Call::Kind::kLossGrad;
  lo::cpu::Call call;
  ++calls;
  const lo::Status status =
      lo::cpu::Call::Make(kind, data, threads, in->Flag() ? isa : nullptr, &call);
  if (!status.ok()) {
    if (status.message().empty()) Fault("an error without words");
    return;
  }
  const lo::cpu::PlanInfo plan = call.Explain();
  if (call.workspace_bytes() < 0) Fault("a workspace of negative size");
  if (plan.workers < 0 || plan.workers > threads) Fault("more workers than threads");
  if (plan.tasks < 0 || plan.tasks > 0xffff) Fault("tasks beyond what a stage counts");
}

// ----------------------------------------------------------------------------------------- passes

struct Made {
  lo::Data data;
  bool integers;
  int64_t outputs() const { return data.shape.weight_rows() * data.shape.k; }
};

lo::Status Pass(const Made& made, const char* isa, int threads, bool per_target, Array* loss,
                Array* grad) {
  lo::cpu::Call call;
  lo::Status status =
      lo::cpu::Call::Make(lo::cpu::Call::Kind::kLossGrad, made.data, threads, isa, &call);
  if (!status.ok()) return status;
  const Workspace workspace(call.workspace_bytes());
  lo::LossGrad out;
  ++calls;
  out.loss = loss == nullptr ? nullptr : loss->data();
  out.loss_per_target = per_target;
  out.grad = grad == nullptr ? nullptr : grad->data();
  return call.Run(made.data, out, lo::PoolThreads(threads), workspace.data(), workspace.bytes());
}

lo::Status Descend(const Made& made, const char* isa, int threads, const std::vector<double>& rates,
                   int64_t steps, double momentum, Array* w, Array* losses) {
  lo::cpu::Call call;
  lo::Status status =
      lo::cpu::Call::Make(lo::cpu::Call::Kind::kDescent, made.data, threads, isa, &call);
  if (!status.ok()) return status;
  const Workspace workspace(call.workspace_bytes());
  lo::Descent descent;
  ++calls;
  descent.num_steps = steps;
  descent.rates = rates.data();
  descent.num_rates = static_cast<int64_t>(rates.size());
  descent.momentum = momentum;
  descent.w = w->data();
  descent.losses = losses->data();
  return call.Run(made.data, descent, lo::PoolThreads(threads), workspace.data(),
                  workspace.bytes());
}

void TryPass(Input* in) {
  Made made;
  lo::Data& data = made.data;
  const bool wide = in->Flag();
  data.shape = {in->Below(wide ? 9 : 140), wide ? in->Byte() * 5 : in->Below(40), in->Below(21),
                in->Flag()};
  data.x_type = kTypes[in->Below(4)];
  const bool half = lo::SizeOf(data.x_type) == 2;
  data.w_type = half && in->Flag() ? DType::kFloat32 : data.x_type;
  made.integers = in->Below(4) != 0;
  const lo::Shape& shape = data.shape;
  const int shift = in->Below(4);
  Array x(data.x_type, shape.n * shape.d, shift), w(data.w_type, made.outputs(), shift);
  Array y(data.w_type, shape.n * shape.k, shift), s(data.w_type, shape.n, shift);
  data.x = x.Fill(in, made.integers).data();
  data.w = w.Fill(in, made.integers).data();
  if (in->Flag()) data.y = y.Fill(in, made.integers).data();
  if (in->Flag()) data.sample_weight = s.Fill(in, made.integers).data();
  const int threads = 1 + in->Below(3);
  const bool per_target = in->Flag();
  const bool descends = in->Below(3) == 0;
  std::vector<double> rates(in->Flag() ? 1 : 3, 0.0);
  for (double& rate : rates) {
    const int64_t bits = in->Number();
    std::memcpy(&rate, &bits, sizeof(rate));
    if (made.integers) rate = 0.125;
  }
  const Array none(data.w_type, 0, 0);
  std::unique_ptr<Array> first_loss, first_grad;
  for (const lo::cpu::Isa& isa : lo::cpu::Isas()) {
    if (!isa.supported) continue;
    for (const int count : {1, threads}) {
      const int64_t losses = descends ? 4 : per_target ? shape.k : 1;
      auto loss = std::make_unique<Array>(data.w_type, losses, shift);
      auto grad = std::make_unique<Array>(data.w_type, made.outputs(), shift);
      const lo::Status status =
          descends ? Descend(made, isa.name, count, rates, 3, made.integers ? 0.5 : rates[0],
                             grad.get(), loss.get())
                   : Pass(made, isa.name, count, per_target, loss.get(), grad.get());
      if (!status.ok()) Fault("a pass failed:", status.message());
      // Sums of integers are exact: the same from every engine. Else the same for any threads.
      const bool comparable = count > 1 || (made.integers && !descends);
      if (first_loss != nullptr && comparable &&
          !(first_loss->Equals(*loss) && first_grad->Equals(*grad))) {
        Fault("engines or threads differ:", isa.name);
      }
      first_loss = std::move(loss);
      first_grad = std::move(grad);
    }
  }
}

// ------------------------------------------------------------------------------------------- Gram

struct Sums {
  std::vector<double> sums, pending, scale, offset;
  std::vector<int64_t> rows;
  lo::GramState state;

  explicit Sums(const lo::GramShape& shape)
      : sums(static_cast<std::size_t>(shape.folds * 2 * lo::GramSumsSize(shape.d, shape.k))),
        pending(static_cast<std::size_t>(shape.folds * lo::kGramBlockRows * shape.width())),
        scale(static_cast<std::size_t>(shape.d + shape.k), 1.0),
        offset(scale.size(), 0.0),
        rows(static_cast<std::size_t>(shape.folds)),
        state{shape, sums.data(), pending.data(), rows.data(), scale.data(), offset.data()} {}
};

std::vector<double> Written(const Sums& sums, const char* isa, int threads) {
  const lo::GramShape& shape = sums.state.shape;
  const int64_t d = shape.d, k = shape.k;
  std::vector<double> all(static_cast<std::size_t>(d * d + d * k + k + d + k + 1));
  double* at = all.data();
  lo::GramResult result = {};
  result.xx = at;
  result.xy = at += d * d;
  result.yy = at += d * k;
  result.x_sum = at += k;
  result.y_sum = at += d;
  result.weight = at + k;
  std::vector<int64_t> folds;
  for (int64_t f = 0; f < shape.folds; ++f) folds.push_back(f);
  const Workspace workspace(lo::cpu::GramSumWorkspaceBytes(sums.state, threads));
  ++calls;
  const lo::Status status =
      lo::cpu::GramSum(sums.state, folds.data(), shape.folds, result, lo::PoolThreads(threads),
                       workspace.data(), workspace.bytes(), isa);
  if (!status.ok()) Fault("sums failed:", status.message());
  return all;
}

lo::Status Append(Sums* sums, const lo::GramBatch& batch, const char* isa, int threads) {
  const Workspace workspace(lo::cpu::GramUpdateWorkspaceBytes(sums->state, batch.n, threads));
  ++calls;
  return lo::cpu::GramUpdate(sums->state, batch, {}, lo::PoolThreads(threads), workspace.data(),
                             workspace.bytes(), isa);
}

// What one instruction set makes of the input; the first says how many bytes of it there are.
std::vector<double> Accumulated(Input in, const char* isa) {
  lo::GramShape shape = {in.Below(21), in.Below(5), 1 + in.Below(3)};
  if (in.Below(8) == 0) shape = {in.Size(), in.Size(), in.Size()};
  if (!lo::ValidateGram(shape).ok()) return {};
  if (shape.d > 300 || shape.k > 40 || shape.folds > 20) return {};
  Sums state(shape), other(shape);
  if (in.Below(4) == 0) {  // resumed from a file that anybody wrote
    for (int64_t& count : state.rows) count = in.Number() & std::numeric_limits<int64_t>::max();
    for (double& value : state.pending) value = in.used_up() ? 1.0 : in.Below(7) - 3;
    for (double& value : state.sums) value = in.used_up() ? 0.0 : in.Below(7) - 3;
  }
  const int threads = 1 + in.Below(3);
  for (int round = in.Below(4); round >= 0; --round) {
    Sums& to = in.Flag() ? other : state;
    lo::GramBatch batch;
    batch.n = in.Flag() ? in.Byte() * 9 : in.Below(9);
    batch.x_type = kTypes[in.Below(4)];
    batch.y_type = kTypes[in.Below(4)];
    batch.weight_type = kTypes[in.Below(4)];
    const int shift = in.Below(4);
    Array x(batch.x_type, batch.n * shape.d, shift), y(batch.y_type, batch.n * shape.k, shift);
    Array s(batch.weight_type, batch.n, shift);
    batch.x = x.Fill(&in, true).data();
    batch.y = y.Fill(&in, true).data();
    if (in.Flag()) batch.sample_weight = s.Fill(&in, true).data();
    std::vector<int64_t> fold(static_cast<std::size_t>(batch.n));
    const bool wrong = in.Below(16) == 0;
    for (int64_t& number : fold) number = wrong ? in.Size() : in.Byte() % shape.folds;
    if (shape.folds > 1 || in.Flag()) batch.fold = fold.data();
    const std::vector<int64_t> before = to.rows;
    if (!Append(&to, batch, isa, threads).ok() && to.rows != before)
      Fault("rows of a refused batch");
  }
  if (in.Flag()) {
    const Workspace workspace(
        lo::cpu::GramUpdateWorkspaceBytes(state.state, lo::kGramBlockRows, threads));
    ++calls;
    (void)lo::cpu::GramMerge(state.state, other.state, lo::PoolThreads(threads), workspace.data(),
                             workspace.bytes(), isa);
  }
  for (const int64_t rows : state.rows) {
    if (rows < 0) Fault("rows below zero");
  }
  return Written(state, isa, threads);
}

void TryGram(const Input& in) {
  std::vector<double> first;
  for (const lo::cpu::Isa& isa : lo::cpu::Isas()) {
    if (!isa.supported) continue;
    const std::vector<double> found = Accumulated(in, isa.name);
    if (first.empty()) first = found;
    if (found != first) Fault("Gram engines differ:", isa.name);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  switch (in.Below(4)) {
    case 0:
      TryShapes(&in);
      break;
    case 1:
      TryPlan(&in);
      break;
    case 2:
      TryPass(&in);
      break;
    default:
      TryGram(in);
  }
  return 0;
}

#ifdef LINREG_OPS_REPLAY
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

namespace {

void Try(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

int64_t Replay(const char* folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    std::fprintf(stderr, "%s\n", path.filename().c_str());  // the last one is the one that aborts
    std::ifstream file(path, std::ios::binary);
    Try(std::string((std::istreambuf_iterator<char>(file)), {}));
  }
  return static_cast<int64_t>(paths.size());
}

int64_t ResidentBytes() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

// Input i of a seed is always the same: what stops between two lines is found by beginning there.
int64_t Random(int64_t count, std::uint64_t seed, int64_t first) {
  std::string bytes;
  int64_t before = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i == count / 10) before = ResidentBytes();  // what is made once is there by now
    if (i % 100000 == 0) {
      std::fprintf(stderr, "input %lld of seed %llu\n", static_cast<long long>(first + i),
                   static_cast<unsigned long long>(seed));
    }
    std::mt19937_64 random(seed << 40 ^ static_cast<std::uint64_t>(first + i));
    bytes.resize(std::size_t{16} << random() % 9);
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      const std::uint64_t eight = random();
      std::memcpy(&bytes[at], &eight, 8);
    }
    // What comes first are sizes: small ones mostly, of which there are many more calls.
    const bool small = random() % 8 != 0;
    for (std::size_t at = 0; small && at < 12; ++at) bytes[at] = static_cast<char>(bytes[at] & 15);
    Try(bytes);
  }
  const int64_t grown = ResidentBytes() - before;
  std::printf("%lld calls, grown by %lld bytes\n", static_cast<long long>(calls),
              static_cast<long long>(grown));
  if (grown > 8 * count + (int64_t{16} << 20)) Fault("memory is not given back");
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  long long inputs = 0;
  const auto number = [&](int i, int64_t otherwise) {
    return i < argc ? std::atoll(argv[i]) : otherwise;
  };
  if (argc > 2 && std::string(argv[1]) == "--random") {
    inputs = Random(number(2, 0), static_cast<std::uint64_t>(number(3, 0)), number(4, 0));
  } else {
    for (int i = 1; i < argc; ++i) inputs += Replay(argv[i]);
  }
  std::printf("%s: %lld inputs replayed\n", inputs > 0 ? "OK" : "FAILED", inputs);
  return inputs > 0 ? 0 : 1;
}
#endif
