// What a warp does together, beside shuffles and votes: bar.warp.sync, ldmatrix and mma.sync, with
// the elements of each lane where the figures of the PTX manual have them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "block.h"
#include "report.h"

namespace ptx_runner {
namespace {

constexpr int kLanes = 32, kSide = 8;  // of a matrix of ldmatrix
constexpr int kRows = 16, kTargets = 8, kDepth = 16;

float Widened(Register bits) {
  const std::uint32_t word = static_cast<std::uint32_t>(bits & 0xffff) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

float TowardsZero(double value) {
  const auto nearest = static_cast<float>(value);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(value) ? std::nextafter(nearest, 0.0f)
                                                                    : nearest;
}

}  // namespace

// A barrier among lanes: they know what all of them knew.
void Block::SyncWarp(int first, int last) {
  Clock all = threads_[first].clock;
  for (int n = first + 1; n < last; ++n) {
    const Clock& other = threads_[n].clock;
    all.now = std::max(all.now, other.now);
    for (int w = 0; w < kMostWarps; ++w) all.known[w] = std::max(all.known[w], other.known[w]);
    for (std::size_t b = 0; b < all.phases.size(); ++b) {
      all.phases[b] = std::max(all.phases[b], other.phases[b]);
    }
  }
  all.known[first / kLanes] = std::max(all.known[first / kLanes], all.now + 1);
  for (int n = first; n < last; ++n) {
    Clock& clock = threads_[n].clock;
    clock.known = all.known;
    clock.phases = all.phases;
    clock.now = all.now + 1;
  }
}

// Matrix m's row r is 16 bytes at the address of lane 8 m + r; lane l gets two elements of its row
// l / 4 or, transposed, of its column l / 4.
void Block::LoadMatrices(int first, const Instruction& i) {
  std::uint16_t matrices[4][kSide][kSide];
  const auto count = static_cast<int>(i.vector.size());
  for (int lane = 0; lane < count * kSide; ++lane) {
    Thread& t = threads_[first + lane];
    const auto address =
        static_cast<std::uint32_t>(t.registers[i.from[0]] + static_cast<Register>(i.offset));
    const unsigned char* row = Shared(t, address, sizeof matrices[0][0]);
    Check(t, shared_.Read(address - kSharedBase, sizeof matrices[0][0], Number(t), t.clock));
    std::memcpy(matrices[lane / kSide][lane % kSide], row, sizeof matrices[0][0]);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int m = 0; m < count; ++m) {
      const int own = lane / 4, pair = lane % 4 * 2;
      const auto& from = matrices[m];
      const Register low = i.transposed ? from[pair][own] : from[own][pair];
      const Register high = i.transposed ? from[pair + 1][own] : from[own][pair + 1];
      threads_[first + lane].registers[i.vector[m]] = low | high << 16;
    }
  }
}

// D = A B + C of bfloat16 factors: each element one sum, rounded once, towards zero, which is no
// better than what a GPU does. Operands: D's 4 registers, A's 4, B's 2, C's 4.
void Block::MultiplyInWarp(int first, const Instruction& i) {
  float a[kRows][kDepth], b[kDepth][kTargets];
  double sums[kRows][kTargets];
  for (int lane = 0; lane < kLanes; ++lane) {
    const Thread& t = threads_[first + lane];
    const int own = lane / 4, quarter = lane % 4;
    for (int e = 0; e < 2; ++e) {
      const auto element = [&](int operand) {
        return Widened(t.registers[i.vector[operand]] >> 16 * e);
      };
      for (int r = 0; r < 4; ++r) a[own + r % 2 * 8][r / 2 * 8 + quarter * 2 + e] = element(4 + r);
      for (int r = 0; r < 2; ++r) b[r * 8 + quarter * 2 + e][own] = element(8 + r);
    }
    for (int r = 0; r < 4; ++r) {
      const auto bits = static_cast<std::uint32_t>(t.registers[i.vector[10 + r]]);
      float c;
      std::memcpy(&c, &bits, sizeof c);
      sums[own + r / 2 * 8][quarter * 2 + r % 2] = c;
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < kTargets; ++n) {
      for (int at = 0; at < kDepth; ++at) {
        sums[row][n] += static_cast<double>(a[row][at]) * static_cast<double>(b[at][n]);
      }
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int r = 0; r < 4; ++r) {
      const float d = TowardsZero(sums[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2]);
      Register& to = threads_[first + lane].registers[i.vector[r]];
      to = 0;
      std::memcpy(&to, &d, sizeof d);
    }
  }
}

}  // namespace ptx_runner
