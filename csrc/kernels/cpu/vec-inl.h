// The vector vocabulary of the instruction set that the unit is compiled for, and what is built on
// it. An instruction set's unit (avx2.cc, ...) is one translation unit with flags of its own: every
// *-inl.h is part of one, and keeps its names in an anonymous namespace, so that no function
// compiled with those flags can be linked into another unit.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"

#if defined(__AVX512F__) || defined(LINREG_OPS_EMULATED_AVX512)
#include "kernels/cpu/vec_avx512-inl.h"
#elif defined(__aarch64__)
#include "kernels/cpu/vec_neon-inl.h"
#else
#include "kernels/cpu/vec_avx2-inl.h"
#endif

namespace linreg_ops {
namespace cpu {
namespace {

// How many rows are summed in C before the sum goes on in double.
constexpr std::int64_t kRowsPerFlush = 128;

constexpr int PowerOfTwo(int a) { return a <= 1 ? 1 : 2 * PowerOfTwo((a + 1) / 2); }
template <class I>
constexpr I Min(I a, I b) {
  return a < b ? a : b;
}
template <class I>
constexpr I Max(I a, I b) {
  return a < b ? b : a;
}
template <class C>
inline const C* At(const C* base, std::int64_t i) {
  return base == nullptr ? nullptr : base + i;
}

// Vectors of the compute type, and their lanes.
template <class C>
using Vec = decltype(Load(static_cast<const C*>(nullptr)));
template <class T>
constexpr int kLanes = Lanes(static_cast<const Compute<T>*>(nullptr));

// Adjacent lanes of a followed by b, added.
template <class V>
inline V AddPairs(V a, V b) {
  V even, odd;
  Unzip(a, b, even, odd);
  return Add(even, odd);
}

// Lane i < N of the result is the sum of the lanes of a[i], by the same tree for every N. Recursion
// and not loops, which leave the compiler with an array in memory.
template <int N, class V>
[[gnu::always_inline]] inline V AddTree(const V* a) {
  if constexpr (N == 1) {
    return a[0];
  } else {
    return AddPairs(AddTree<N / 2>(a), AddTree<N / 2>(a + N / 2));
  }
}

inline double SumLanes(F64x8 a) {
  double v[8];
  Store(v, a);
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}
inline double SumLanes(const float*, const double* lanes) {
  return SumLanes(Add(Load(lanes), Load(lanes + 8)));
}
inline double SumLanes(const double*, const double* lanes) { return SumLanes(Load(lanes)); }

inline void StoreWide(double* p, F32x16 a) {
  Store(p, Low(a));
  Store(p + 8, High(a));
}
inline void StoreWide(double* p, F64x8 a) { Store(p, a); }
inline void AddWide(double* p, F32x16 a) {
  Store(p, Add(Load(p), Low(a)));
  Store(p + 8, Add(Load(p + 8), High(a)));
}
inline void AddWide(double* p, F64x8 a) { Store(p, Add(Load(p), a)); }

// The last vector of a row whose length is not a multiple of W: of a row shorter than W its
// elements with zeros behind; else the W elements that end the row, with zeros in place of those
// that the vector before has. Nothing outside the row is read.
template <class T>
inline auto LoadTail(const T* row, std::int64_t d) {
  constexpr int W = kLanes<T>;
  if (d < W) return LoadFirst(row, static_cast<int>(d));
  return DropFirst(Load(row + d - W), static_cast<int>((W - d % W) % W));
}

// A mask for And: all ones in the last `kept` lanes of every G, zeros in the others.
template <class C, int G>
inline Vec<C> KeepLast(std::int64_t kept) {
  using Bits = std::conditional_t<sizeof(C) == 8, std::uint64_t, std::uint32_t>;
  alignas(64) Bits mask[kLanes<C>];
  for (int i = 0; i < kLanes<C>; ++i) mask[i] = i % G >= G - kept ? ~Bits{0} : Bits{0};
  C lanes[kLanes<C>];
  __builtin_memcpy(lanes, mask, sizeof(mask));
  return Load(lanes);
}

// Splits N vectors of interleaved columns: lane i of column[j] is element i·N + j of the whole.
template <int N, class V>
[[gnu::always_inline]] inline void Deinterleave(const V* v, V* column) {
  if constexpr (N == 1) {
    column[0] = v[0];
  } else {
    V even[N / 2], odd[N / 2], even_columns[N / 2], odd_columns[N / 2];
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; ++i) Unzip(v[2 * i], v[2 * i + 1], even[i], odd[i]);
    Deinterleave<N / 2>(even, even_columns);
    Deinterleave<N / 2>(odd, odd_columns);
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; ++i) {
      column[2 * i] = even_columns[i];
      column[2 * i + 1] = odd_columns[i];
    }
  }
}

// The columns of W rows of D elements; as many vectors as the next power of two. May read up to W
// elements beyond the rows.
template <int D, class T, class V>
[[gnu::always_inline]] inline void LoadColumns(const T* x, V* column) {
  constexpr int W = kLanes<T>;
  constexpr int P = PowerOfTwo(D);
  V v[P];
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i) {
    if constexpr (P == W) {
      v[i] = Load(x + i * D);
    } else {
      v[i] = LoadRows<D, P>(x + i * (W / P) * D);
    }
  }
  Deinterleave<P>(v, column);
}

// The column that position j of such a padded row stands for; −1: none.
template <int W>
inline std::int64_t ColumnOf(std::int64_t d, std::int64_t j) {
  const std::int64_t whole = d / W * W;
  if (j < whole) return j;
  if (whole == 0) return j < d ? j : -1;
  const std::int64_t column = d - W + (j - whole);
  return column < whole ? -1 : column;
}

// Fetches the cache lines of kBytes bytes, `ahead` of p, non-temporally: a pass has no second use
// for them, but its caller has for what they would displace from L2. X that fits into L3 stays
// there.
template <int kBytes>
[[gnu::always_inline]] inline void PrefetchAhead(const void* p, std::int64_t ahead) {
#pragma GCC unroll 64
  for (int i = 0; i < kBytes; i += 64) PrefetchOnce(static_cast<const char*>(p) + ahead + i);
}

// Widens `count` elements to the compute type.
template <class T>
void Widen(const void* from, void* to, std::int64_t count) {
  constexpr int W = kLanes<T>;
  const T* in = static_cast<const T*>(from);
  Compute<T>* out = static_cast<Compute<T>*>(to);
  std::int64_t i = 0;
  for (; i + W <= count; i += W) Store(out + i, Load(in + i));
  if (i == count) return;
  Compute<T> tail[W];
  Store(tail, LoadFirst(in + i, static_cast<int>(count - i)));
  for (int j = 0; i + j < count; ++j) out[i + j] = tail[j];
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
