// Residuals, a lane for each row of one target or for each row and target, and what is summed over
// them. Part of one instruction set's unit: see vec-inl.h.
//
// r = (Σⱼ xⱼ wⱼ) + (bias − y) in the compute type C: what cancels rounds once or twice, at the size
// of y. Squares and sums over rows are doubles.
#pragma once

#include <cstdint>

#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// The sum of N accumulators, which were kept apart to hide the latency of an addition.
template <int N, class V>
[[gnu::always_inline]] inline V Merge(const V (&sum)[N]) {
  static_assert(N == 1 || N == 2 || N == 4);
  if constexpr (N == 1) return sum[0];
  if constexpr (N == 2) return Add(sum[0], sum[1]);
  if constexpr (N == 4) return Add(Add(sum[0], sum[1]), Add(sum[2], sum[3]));
}

// A sum with its rounding errors summed beside it, for sums of so many parts that errors in the
// last bits would add up.
template <class V>
struct Compensated {
  V sum = {}, error = {};

  [[gnu::always_inline]] void Add(V a) {
    const V total = sum + a, added = total - sum;
    error = error + ((sum - (total - added)) + (a - added));
    sum = total;
  }
};
// Sums that overflowed have no error to correct.
inline double Value(const Compensated<double>& a) {
  return a.error - a.error == 0 ? a.sum + a.error : a.sum;
}
// What lanes t, t + P, ... add up to.
template <int P>
inline double Value(const Compensated<F64x8>& a, std::int64_t t) {
  double sum[8], error[8];
  Store(sum, a.sum);
  Store(error, a.error);
  Compensated<double> total;
  for (std::int64_t i = t; i < 8; i += P) total.Add(sum[i]);
  for (std::int64_t i = t; i < 8; i += P) total.error += error[i];
  return Value(total);
}

// Sums over a block of rows, lane by lane: Σ s r² and Σ s r.
struct Sums {
  F64x8 loss = {}, bias = {};

  // Without weights, s r is r: a function of its own, or it would be converted twice.
  [[gnu::always_inline]] void Take(F32x16 r) {
    Take(Low(r));
    Take(High(r));
  }
  [[gnu::always_inline]] void Take(F64x8 r) {
    loss = Fma(r, r, loss);
    bias = Add(bias, r);
  }
  [[gnu::always_inline]] void Take(F32x16 sr, F32x16 r) {
    Take(Low(sr), Low(r));
    Take(High(sr), High(r));
  }
  [[gnu::always_inline]] void Take(F64x8 sr, F64x8 r) {
    loss = Fma(sr, r, loss);
    bias = Add(bias, sr);
  }
};

// The Sums of blocks of rows, added up: Σ s r² and Σ s r.
struct Totals {
  Compensated<F64x8> loss, bias;

  // Takes what `sums` has, and leaves it empty.
  void Take(Sums& sums) {
    loss.Add(sums.loss);
    bias.Add(sums.bias);
    sums = Sums{};
  }
};

// y or sample_weight of rows, as vectors of the compute type. Elements are of type T or, beside a
// 16-bit X, may be floats.
template <class T>
class RowValues {
 public:
  using C = Compute<T>;
  using V = Vec<C>;

  RowValues(const void* base, bool as_wide) : base_(base), as_wide_(as_wide) {}
  bool is_null() const { return base_ == nullptr; }

  // Rows i ... i + W − 1; zeros from row i + valid on, where nothing is read.
  [[gnu::always_inline]] V At(std::int64_t i, std::int64_t valid) const {
    if constexpr (!std::is_same_v<T, C>) {
      if (!as_wide_) return LoadUpTo(static_cast<const T*>(base_) + i, valid);
    }
    return LoadUpTo(static_cast<const C*>(base_) + i, valid);
  }

  // Fetches what belongs to kRows rows, `ahead` rows behind row i.
  template <int kRows>
  [[gnu::always_inline]] void Prefetch(std::int64_t i, std::int64_t ahead) const {
    if (is_null()) return;
    if constexpr (!std::is_same_v<T, C>) {
      if (!as_wide_) {
        return cpu::Prefetch<kOnce, kRows * sizeof(T)>(static_cast<const T*>(base_) + i + ahead);
      }
    }
    cpu::Prefetch<kOnce, kRows * sizeof(C)>(static_cast<const C*>(base_) + i + ahead);
  }

 private:
  const void* base_;
  bool as_wide_;
};

// Those of one target.
template <class T>
struct Residuals {
  using C = Compute<T>;
  using V = Vec<C>;

  RowValues<T> y, s;
  C bias;
  Sums sums;

  // bias − y of rows i ... i + N W − 1, `valid` of them there: what is added to their dots. N is 1,
  // or 2: then lane i of the h-th vector is row 2 i + h.
  template <int N>
  [[gnu::always_inline]] void Start(std::int64_t i, std::int64_t valid, V (&start)[N]) const {
    if (y.is_null()) {
#pragma GCC unroll 2
      for (int h = 0; h < N; ++h) start[h] = Set(bias);
      return;
    }
    Split(y, i, valid, start);
#pragma GCC unroll 2
    for (int h = 0; h < N; ++h) start[h] = Sub(Set(bias), start[h]);
  }
  // r = dot + Start() of such rows becomes s r, with zeros behind; and is summed.
  template <int N>
  [[gnu::always_inline]] void Finish(std::int64_t i, std::int64_t valid, V (&r)[N]) {
#pragma GCC unroll 2
    for (int h = 0; h < N; ++h) r[h] = Valid(r[h], N == 1 ? valid : (valid - h + 1) / 2);
    if (s.is_null()) {
#pragma GCC unroll 2
      for (int h = 0; h < N; ++h) sums.Take(r[h]);
      return;
    }
    V weight[N];
    Split(s, i, valid, weight);
#pragma GCC unroll 2
    for (int h = 0; h < N; ++h) {
      const V sr = Mul(weight[h], r[h]);
      sums.Take(sr, r[h]);
      r[h] = sr;
    }
  }

 private:
  template <int N>
  [[gnu::always_inline]] static void Split(const RowValues<T>& values, std::int64_t i,
                                           std::int64_t valid, V (&v)[N]) {
    v[0] = values.At(i, valid);
    if constexpr (N == 2) Unzip(v[0], values.At(i + kLanes<T>, valid - kLanes<T>), v[0], v[1]);
  }

  [[gnu::always_inline]] static V Valid(V r, std::int64_t valid) {
    if (valid >= kLanes<T>) return r;
    return KeepFirst(r, static_cast<int>(Max<std::int64_t>(valid, 0)));
  }
};

// Those of several targets, padded to P, a power of two: lane i is target i % P of row i / P of a
// group. What the lanes of no target hold goes nowhere.
template <class C, int P>
struct GroupResiduals {
  using V = Vec<C>;
  static constexpr int kRows = kLanes<C> / P;  // of a group

  V bias;
  const C* y;  // [rows][P], in whole vectors; null: zeros
  const C* s;  // [rows], and a vector of zeros behind; null: ones
  Sums sums;

  // bias − y of the group from row i on: what is added to their dots.
  [[gnu::always_inline]] V Start(std::int64_t i) const {
    return y == nullptr ? bias : Sub(bias, Load(y + i * P));
  }
  // r = dot + Start() becomes s r, with zeros from row `valid` of the group on; and is summed.
  [[gnu::always_inline]] V Finish(std::int64_t i, std::int64_t valid, V r) {
    if (valid < kRows) r = KeepFirst(r, static_cast<int>(valid) * P);
    if (s == nullptr) {
      sums.Take(r);
      return r;
    }
    const V sr = Mul(SpreadRows<P>(s + i), r);
    sums.Take(sr, r);
    return sr;
  }
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
