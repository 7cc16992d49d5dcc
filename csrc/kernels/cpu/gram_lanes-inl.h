// The Gram engine's inner loops for few columns: a lane for each of a block's eight runs. Part of
// one instruction set's unit: see vec-inl.h. What they compute is said in gram_kernel.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/gram_kernel.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// The rows of a run are one stream of elements, whatever its columns are.
template <class T>
void ToLanes(const GramToLanes& p) {
  const T* from = static_cast<const T*>(p.data);
  const T* const end = from + p.rows * p.columns;
  const std::int64_t run_elements = p.run_elements, columns = p.columns;
  const std::int64_t skip = (p.stride - columns) * kGramLanes;
  const double* const scale = p.scale;
  const double* const offset = p.offset;
  double* to = p.lanes;
  std::int64_t column = 0;
  for (; from < end; from += 8) {
    F64x8 v[kGramLanes];
#pragma GCC unroll 8
    for (int run = 0; run < kGramLanes; ++run) {
      const T* const at = from + run * run_elements;
      v[run] = LoadF64(at);
      __builtin_prefetch(at + kGramLanes * run_elements, 0, 2);  // of the next block
    }
    Transpose(v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      Store(to, Fma(v[i], Set(scale[column]), Set(offset[column])));
      to += kGramLanes;
      if (++column == columns) {
        column = 0;
        to += skip;
      }
    }
  }
}

constexpr int kLaneTile = kAccumulators >= 24 ? 12 : 6;

// One column times N others, and with kSum the column itself.
template <int N, bool kSum, bool kWeights>
inline void LaneTile(const GramLaneSums& p, std::int64_t left, std::int64_t right, double* sums) {
  F64x8 sum, acc[N];
  if (kSum) sum = Load(sums);
  double* const products = sums + (kSum ? kGramLanes : 0);
#pragma GCC unroll kLaneTile
  for (int v = 0; v < N; ++v) acc[v] = Load(products + v * kGramLanes);
  const double* z = p.lanes;
#pragma GCC unroll 2
  for (std::int64_t t = 0; t < p.rows; ++t) {
    F64x8 sz = Load(z + left * kGramLanes);
    if (kWeights) sz = Mul(sz, Load(p.weights + t * kGramLanes));
    if (kSum) sum = Add(sum, sz);
#pragma GCC unroll kLaneTile
    for (int v = 0; v < N; ++v) acc[v] = Fma(sz, Load(z + (right + v) * kGramLanes), acc[v]);
    z += p.columns * kGramLanes;
  }
  if (kSum) Store(sums, sum);
#pragma GCC unroll kLaneTile
  for (int v = 0; v < N; ++v) Store(products + v * kGramLanes, acc[v]);
}

template <bool kSum, bool kWeights, int N = kLaneTile - kSum>
void LaneTiles(const GramLaneSums& p, std::int64_t left, std::int64_t right, std::int64_t count,
               double* sums) {
  if constexpr (N > 0) {
    if (count == N) return LaneTile<N, kSum, kWeights>(p, left, right, sums);
    LaneTiles<kSum, kWeights, N - 1>(p, left, right, count, sums);
  }
}

template <bool kWeights>
void AllLaneSums(const GramLaneSums& p) {
  double* sums = p.sums;
  for (std::int64_t left = 0; left < p.columns; ++left) {
    const std::int64_t count = left < p.x_columns ? p.columns - left : 1;
    // As many in one tile as in another, so that none waits for its own sums.
    const std::int64_t tiles = CeilDiv(count + 1, std::int64_t{kLaneTile});
    const std::int64_t most = CeilDiv(count + 1, tiles);
    std::int64_t done = Min(most - 1, count);
    LaneTiles<true, kWeights>(p, left, left, done, sums);
    while (done < count) {
      const std::int64_t more = Min(most, count - done);
      LaneTiles<false, kWeights>(p, left, left + done, more, sums + (1 + done) * kGramLanes);
      done += more;
    }
    sums += (1 + count) * kGramLanes;
  }
}

void LaneSums(const GramLaneSums& p) {
  p.weights == nullptr ? AllLaneSums<false>(p) : AllLaneSums<true>(p);
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
