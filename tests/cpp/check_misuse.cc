// What a caller gets wrong is an error that touches no output: sizes, types, arrays that are
// missing, data that a call was not made for, workspaces that are too small. Also what only a
// caller in C++ can ask for.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "host/shape_rules.h"
#include "kernels/gram.h"
#include "kernels/l2_loss_grad.h"
#include "kernels/sizes.h"

namespace lo = linreg_ops;
using lo::DType;
using lo::Status;
using std::int64_t;
using Kind = lo::cpu::Call::Kind;

namespace {

int failures = 0;

void Expect(bool good, const std::string& what) {
  if (good) return;
  ++failures;
  std::fprintf(stderr, "FAIL misuse: %s\n", what.c_str());
}
void Refuses(const Status& status, const std::string& what) {
  Expect(status.code() == Status::Code::kInvalidArgument && !status.message().empty(), what);
}

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

void Sizes() {
  for (const lo::Shape& shape :
       std::vector<lo::Shape>{{-1, 1, 1, false},
                              {1, -1, 1, false},
                              {1, 1, -1, false},
                              {int64_t{1} << 57, 1, 1, false},
                              {int64_t{1} << 57, 0, 0, false},
                              {0, int64_t{1} << 57, 0, false},
                              {0, 0, int64_t{1} << 57, false},
                              {int64_t{1} << 30, int64_t{1} << 30, 1, false},
                              {int64_t{1} << 30, 1, int64_t{1} << 30, false},
                              {1, int64_t{1} << 30, int64_t{1} << 30, false},
                              {1, kMost, 1, true}}) {
    Refuses(lo::ValidateSizes(shape), "sizes " + std::to_string(shape.n) + ", " +
                                          std::to_string(shape.d) + ", " + std::to_string(shape.k));
  }
  Expect(lo::ValidateSizes({int64_t{1} << 56, 0, 0, false}).ok(), "2^56 rows");
  Refuses(lo::ValidateSteps(-1), "-1 steps");
  Refuses(lo::ValidateSteps(lo::kMaxSteps + 1), "too many steps");
  Expect(lo::ValidateSteps(lo::kMaxSteps).ok(), "as many steps as there may be");
  Refuses(lo::ValidateTypes(DType::kFloat32, DType::kFloat64), "w of another type");
  Expect(lo::SaturatingProduct({int64_t{1} << 62, 4, 0}) == 0, "a product with zero");
  Expect(lo::SaturatingProduct({int64_t{1} << 62, 4}) == kMost, "a product that overflows");
}

// A problem of 5 rows by 3 columns and 2 targets, and what every run writes to.
struct Small {
  std::vector<float> x = std::vector<float>(15, 1), w = std::vector<float>(6, 1),
                     y = std::vector<float>(10), s = std::vector<float>(5, 1);
  std::vector<float> loss = std::vector<float>(9, 7), grad = std::vector<float>(6, 7);
  std::vector<char> workspace = std::vector<char>(1 << 16, '\xff');

  lo::Data data() const {
    lo::Data data;
    data.shape = {5, 3, 2, false};
    data.x = x.data();
    data.w = w.data();
    data.y = y.data();
    return data;
  }
  lo::LossGrad out() {
    lo::LossGrad out;
    out.loss = loss.data();
    out.grad = grad.data();
    return out;
  }
  lo::Descent descent(const double* rates) {
    lo::Descent descent;
    descent.num_steps = 2;
    descent.rates = rates;
    descent.w = grad.data();
    descent.losses = loss.data();
    return descent;
  }
  char* aligned() {
    const auto at = reinterpret_cast<std::uintptr_t>(workspace.data());
    return workspace.data() + (at + 63) / 64 * 64 - at;
  }
  bool untouched() const {
    const auto is_7 = [](float value) { return value == 7; };
    return std::all_of(loss.begin(), loss.end(), is_7) &&
           std::all_of(grad.begin(), grad.end(), is_7);
  }
};

void Arrays() {
  Small small;
  lo::cpu::Call call;
  const auto without = [&](const void* lo::Data::* array) {
    lo::Data data = small.data();
    data.*array = nullptr;
    return lo::cpu::Call::Make(Kind::kLossGrad, data, 1, nullptr, &call);
  };
  Refuses(without(&lo::Data::x), "no x");
  Refuses(without(&lo::Data::w), "no w");
  Expect(without(&lo::Data::y).ok(), "no y");
  Refuses(lo::cpu::Call::Make(Kind::kLossGrad, small.data(), 1, "sse9", &call), "sse9");
  for (const lo::cpu::Isa& isa : lo::cpu::Isas()) {
    const Status status = lo::cpu::Call::Make(Kind::kLossGrad, small.data(), 1, isa.name, &call);
    Expect(status.ok() == isa.supported, isa.name);
  }
}

void Runs() {
  Small small;
  lo::cpu::Call call, none;
  Expect(lo::cpu::Call::Make(Kind::kLossGrad, small.data(), 1, nullptr, &call).ok(), "make");
  const auto run = [&](const lo::Data& data, int64_t bytes, void* workspace) {
    return call.Run(data, small.out(), {}, workspace, bytes);
  };
  const int64_t needed = call.workspace_bytes();
  lo::Data other = small.data();
  other.shape.n = 4;
  Refuses(run(other, needed, small.aligned()), "other rows");
  other = small.data();
  other.x_type = DType::kFloat16;
  Refuses(run(other, needed, small.aligned()), "another type of x");
  other = small.data();
  other.sample_weight = small.s.data();
  Refuses(run(other, needed, small.aligned()), "weights that were not there");
  other = small.data();
  other.y = nullptr;
  Refuses(run(other, needed, small.aligned()), "no y where there was one");
  Refuses(run(small.data(), needed - 1, small.aligned()), "a small workspace");
  Refuses(run(small.data(), needed, nullptr), "no workspace");
  Refuses(none.Run(small.data(), small.out(), {}, small.aligned(), needed), "a call not made");
  const double rate = 0;
  Refuses(call.Run(small.data(), small.descent(&rate), {}, small.aligned(), 1 << 15),
          "a call of the other kind");
  // What is cancelled before it begins, with something to sum and without.
  lo::Data empty = small.data();
  empty.shape.n = 0;
  for (const lo::Data& data : {small.data(), empty}) {
    lo::cpu::Call cancelled;
    Expect(lo::cpu::Call::Make(Kind::kLossGrad, data, 1, nullptr, &cancelled).ok(), "make");
    lo::LossGrad out = small.out();
    out.cancelled = [](void*) { return true; };
    Expect(
        cancelled.Run(data, out, {}, small.aligned(), 1 << 15).code() == Status::Code::kCancelled,
        "a call that is cancelled before it begins");
  }
  Expect(small.untouched(), "outputs of what was refused");
  Expect(run(small.data(), needed, small.aligned()).ok() && small.loss[0] == 45, "the loss");
}

void Descents() {
  Small small;
  const double rates[] = {1.0 / 16, 1.0 / 16};
  lo::cpu::Call call;
  Expect(lo::cpu::Call::Make(Kind::kDescent, small.data(), 1, nullptr, &call).ok(), "make");
  const auto run = [&](const lo::Descent& descent) {
    return call.Run(small.data(), descent, {}, small.aligned(), 1 << 15);
  };
  lo::Descent wrong = small.descent(rates);
  wrong.num_rates = 3;
  Refuses(run(wrong), "three rates for two steps");
  wrong = small.descent(nullptr);
  Refuses(run(wrong), "no rates");
  wrong = small.descent(rates);
  wrong.losses = nullptr;
  Refuses(run(wrong), "no losses");
  wrong = small.descent(rates);
  wrong.w = nullptr;
  Refuses(run(wrong), "nowhere for w");
  wrong = small.descent(rates);
  wrong.num_steps = -1;
  Refuses(run(wrong), "-1 steps");
  Expect(small.untouched(), "outputs of what was refused");
  // Velocity begins at zero, whatever was in memory: w is 1, r = 3, the gradient 15.
  lo::Descent right = small.descent(rates);
  right.momentum = 0.5;
  Expect(run(right).ok() && small.loss[0] == 45, "a descent");
  const float w1 = 1 - 15.0f / 16;
  Expect(small.loss[1] == 5 * 9 * w1 * w1, "the loss after a step");
}

// A descent without weights fills in one loss after the other: long enough to be cancelled.
void CancelledLosses() {
  const int64_t steps = 3 << 20;
  std::vector<float> losses(static_cast<std::size_t>(steps + 1)), y(5, 1);
  lo::Data data;
  data.shape = {5, 0, 1, false};
  data.y = y.data();
  lo::cpu::Call call;
  Expect(lo::cpu::Call::Make(Kind::kDescent, data, 1, nullptr, &call).ok(), "make");
  const double rate = 0;
  int asked = 0;
  lo::Descent descent;
  descent.num_steps = steps;
  descent.rates = &rate;
  descent.losses = losses.data();
  descent.cancelled = [](void* asked) { return ++*static_cast<int*>(asked) > 2; };
  descent.cancelled_context = &asked;
  Small memory;
  const Status status = call.Run(data, descent, {}, memory.aligned(), 1 << 15);
  Expect(status.code() == Status::Code::kCancelled, "losses that nobody waits for");
  Expect(losses.back() == 0, "all losses were written");
}

void Shapes() {
  const int64_t x[] = {lo::kUnknown, lo::kUnknown}, w[] = {4, 2}, matrix[] = {2, 1};
  const int64_t x3[] = {2, lo::kUnknown, 3};
  lo::ProblemShapes given;
  given.x = lo::ArrayShape(x, 2);
  given.w = lo::ArrayShape(w, 2);
  given.intercept = true;
  lo::ProblemSizes found;
  Expect(lo::CheckShapes(given, &found).ok() && found.shape.d == 3, "the columns that w tells");
  const int64_t widest[] = {0, kMost};
  given = {};
  given.x = lo::ArrayShape(widest, 2);
  given.w = lo::ArrayShape(x, 1);
  given.intercept = true;
  Expect(lo::CheckShapes(given, &found).ok() && found.w_rows >= kMost, "a row more than numbers");
  given = {};
  given.x = lo::ArrayShape(x3, 3);
  given.batches = true;
  Expect(lo::CheckShapes(given, &found).ok() && found.w_rank == 3, "the rank that x tells");
  Refuses(lo::CheckRates(lo::ArrayShape(matrix, 2), 2), "a matrix of rates");
  Refuses(lo::CheckRates(lo::ArrayShape(matrix, 1), 3), "two rates for three steps");
  Refuses(lo::CheckScalar("momentum", lo::ArrayShape(matrix, 1)), "a vector of momenta");
}

// ------------------------------------------------------------------------------------------- Gram

void Gram() {
  using Shape = lo::GramShape;
  for (const Shape& shape : {Shape{-1, 1, 1}, Shape{1, -1, 1}, Shape{0, 0, 1}, Shape{1, 1, 0},
                             Shape{kMost, 1, 1}, Shape{1, kMost, 1}, Shape{1, 1, kMost}}) {
    Refuses(lo::ValidateGram(shape), "a Gram state's shape");
  }
  const Shape shape = {2, 1, 2};
  std::vector<double> sums(static_cast<std::size_t>(4 * lo::GramSumsSize(2, 1))),
      pending(2 * lo::kGramBlockRows * 4), scale(3, 1.0), offset(3), x(6, 1.0), y(3, 1.0);
  std::vector<int64_t> rows(2), fold = {0, 1, 1};
  const lo::GramState state = {shape,       sums.data(),  pending.data(),
                               rows.data(), scale.data(), offset.data()};
  const int64_t needed = lo::cpu::GramUpdateWorkspaceBytes(state, 3, 1);
  const int64_t merging = lo::cpu::GramUpdateWorkspaceBytes(state, lo::kGramBlockRows, 1);
  std::vector<char> memory(static_cast<std::size_t>(std::max(needed, merging)) + 64);
  const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
  char* const workspace = memory.data() + (at + 63) / 64 * 64 - at;
  lo::GramBatch batch;
  batch.n = 3;
  batch.x = x.data();
  batch.y = y.data();
  batch.fold = fold.data();
  const auto update = [&](const lo::GramBatch& b, int64_t bytes) {
    return lo::cpu::GramUpdate(state, b, {}, {}, workspace, bytes);
  };
  Refuses(update(batch, needed - 1), "a small workspace for Gram");
  lo::GramBatch wrong = batch;
  wrong.fold = nullptr;
  Refuses(update(wrong, needed), "no fold");
  wrong = batch;
  wrong.x = nullptr;
  Refuses(update(wrong, needed), "no x for Gram");
  wrong = batch;
  wrong.n = -1;
  Refuses(update(wrong, needed), "-1 rows");
  for (const int64_t number : {int64_t{-1}, int64_t{2}, kMost}) {
    fold[2] = number;
    Refuses(update(batch, needed), "fold " + std::to_string(number));
  }
  fold[2] = 1;
  // A state may come from a file that anybody may have written.
  for (const int64_t number : {int64_t{-1}, kMost, kMost - 2}) {
    rows[1] = number;
    Refuses(update(batch, needed), "rows " + std::to_string(number));
    const lo::GramState twice = state;
    Refuses(lo::cpu::GramMerge(state, twice, {}, workspace, merging), "merged rows");
    Expect(rows[0] == 0 && rows[1] == number, "rows of what was refused");
  }
  rows[1] = 0;
  const std::vector<double> halves(scale.size(), 0.5);
  lo::GramState other = state;
  for (int64_t lo::GramShape::* size :
       {&lo::GramShape::d, &lo::GramShape::k, &lo::GramShape::folds}) {
    other.shape.*size -= 1;
    Refuses(lo::cpu::GramMerge(state, other, {}, workspace, merging), "merged shapes");
    other = state;
  }
  other.scale = halves.data();
  Refuses(lo::cpu::GramMerge(state, other, {}, workspace, merging), "merged scales");
  other = state;
  other.offset = halves.data();
  Refuses(lo::cpu::GramMerge(state, other, {}, workspace, merging), "merged offsets");
  Expect(update(batch, needed).ok() && rows[0] == 1 && rows[1] == 2, "a batch");
}

}  // namespace

int CheckMisuse() {
  Sizes();
  Arrays();
  Runs();
  Descents();
  CancelledLosses();
  Shapes();
  Gram();
  return failures;
}
