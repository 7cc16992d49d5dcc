// What the vector vocabularies have in common. Part of one instruction set's unit: see vec-inl.h.
#pragma once

namespace linreg_ops {
namespace cpu {
namespace {

constexpr int Lanes(const float*) { return 16; }
constexpr int Lanes(const double*) { return 8; }

// Where each lane of LoadRows comes from: 64-bit indices for 8 lanes, 32-bit ones for 16.
template <class Index, int kLanes, int D, int P>
struct RowTable {
  Index index[kLanes] = {};
  constexpr RowTable() {
    for (int i = 0; i < kLanes; ++i) {
      if (i % P < D) index[i] = i / P * D + i % P;
    }
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
