// The vector vocabulary of the instruction set that the unit is compiled for, and what is built on
// it. An instruction set's unit (avx2.cc, ...) is one translation unit with flags of its own: every
// *-inl.h is part of one, and keeps its names in an anonymous namespace, so that no function
// compiled with those flags can be linked into another unit.
//
// A virtual vector is 64 bytes everywhere, 16 floats or 8 doubles: a register, or a pair of halves
// that are registers or pairs themselves. An instruction set brings its registers, F32 and F64, and
// what this file asks of one; every operation rounds alike on all of them. 16-bit types load as
// floats.
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

// ------------------------------------------------------------------------------ virtual vectors

template <class H>
struct Pair {
  H a, b;
};
template <class R>
using Virtual = std::conditional_t<sizeof(R) == 64, R,
                                   std::conditional_t<sizeof(R) == 32, Pair<R>, Pair<Pair<R>>>>;
using F32x16 = Virtual<F32>;
using F64x8 = Virtual<F64>;

// The vectors that elements of type T are computed in, and their lanes.
template <class T>
using Vec = std::conditional_t<std::is_same_v<T, double>, F64x8, F32x16>;
template <class T>
constexpr int kLanes = 64 / sizeof(Compute<T>);
template <class V>
constexpr int kLanesOf = std::is_same_v<V, F64x8> ? 8 : 16;
// Lanes of one register.
template <class T>
constexpr int kRegisterLanes = sizeof(F32) / sizeof(Compute<T>);

// The vector of type V whose register from lane i on is of(i).
template <class C, class V = Vec<C>, class Of>
[[gnu::always_inline]] inline V Each(const Of& of, int lane = 0) {
  if constexpr (sizeof(V) > sizeof(F32)) {
    using H = decltype(V::a);
    return {Each<C, H>(of, lane), Each<C, H>(of, lane + static_cast<int>(sizeof(H) / sizeof(C)))};
  } else {
    return of(lane);
  }
}

template <class T>
inline Vec<T> Load(const T* p) {
  return Each<Compute<T>>([p](int lane) { return LoadRegister(p + lane); });
}
// Lanes 0 ... m−1 from p, zeros after; reads nothing beyond p + m.
template <class T>
inline Vec<T> LoadFirst(const T* p, int m) {
  if constexpr (kMaskedLoads<T>) {
    return Each<Compute<T>>([p, m](int lane) { return LoadRegisterFirst(p + lane, m - lane); });
  } else {
    T buffer[kLanes<T>] = {};
    for (int i = 0; i < m; ++i) buffer[i] = p[i];
    return Load(buffer);
  }
}
// The same for any m.
template <class T>
[[gnu::always_inline]] inline Vec<T> LoadUpTo(const T* p, std::int64_t m) {
  if (m >= kLanes<T>) return Load(p);
  return LoadFirst(p, static_cast<int>(Max<std::int64_t>(m, 0)));
}
template <class C>
inline Vec<C> Set(C a) {
  return Each<C>([a](int) { return SetRegister(a); });
}
// G elements from p, repeated over the lanes. Made once: the compiler would make it for each
// register.
template <int G, class T>
inline Vec<T> SetGroup(const T* p) {
  using C = Compute<T>;
  if constexpr (G >= kRegisterLanes<T>) {
    return Each<C>([p](int lane) { return LoadRegister(p + lane % G); });
  } else if constexpr (G == 1) {
    return Set(*p);
  } else {
    const auto group = SetRegisterGroup<G>(p);
    return Each<C>([group](int) { return group; });
  }
}
// By registers: the address of a whole vector would keep it in memory.
template <class C, class R>
inline void Store(C* p, R v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
template <class C, class H>
inline void Store(C* p, Pair<H> v) {
  Store(p, v.a);
  Store(p + sizeof(H) / sizeof(C), v.b);
}

// Rows of D elements, each spread to the next power of two P: lane i holds column i % P of row
// i / P, or anything if there is no such column. Reads a whole vector.
template <class Index, int kCount, int D, int P>
struct RowTable {
  Index index[kCount] = {};
  constexpr RowTable() {
    for (int i = 0; i < kCount; ++i) index[i] = i % P < D ? i / P * D + i % P : 0;
  }
};
template <int D, int P, class T>
inline Vec<T> LoadRows(const T* p) {
  using C = Compute<T>;
  return Each<C>([p](int lane) {
    const auto v = LoadRegister(p + lane / P * D + lane % P);
    if constexpr (D == P || P >= kRegisterLanes<T>) {  // a row begins where a register does
      return v;
    } else {
      using Index = std::conditional_t<sizeof(C) == 8, std::int64_t, std::int32_t>;
      alignas(64) static constexpr RowTable<Index, kRegisterLanes<T>, D, P> kTable;
      return Permute(v, kTable.index);
    }
  });
}

// Elements from p on, each for P lanes: lane i holds p[i / P]. May read a vector from p on.
template <int P, class C>
inline Vec<C> SpreadRows(const C* p) {
  return Each<C>([p](int lane) {
    if constexpr (P >= kRegisterLanes<C>) {
      return SetRegister(p[lane / P]);
    } else {
      return SpreadLanes<P>(LoadRegister(p + lane / P));
    }
  });
}

// Fetches the cache lines of kBytes bytes from p on, kOnce: without displacing what L2 holds. A
// pass has no second use for them, but its caller has for what they would displace; X that fits
// into L3 stays there. Not left to the inliner: GCC takes a function that only fetches for one
// without effect and drops the call.
enum Use { kOnce = 0, kAgain = 3 };
template <Use kUse, int kBytes>
[[gnu::always_inline]] inline void Prefetch(const void* p) {
#pragma GCC unroll 64
  for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(static_cast<const char*>(p) + i, 0, kUse);
}
[[gnu::always_inline]] inline void PrefetchOnce(const void* p) { Prefetch<kOnce, 64>(p); }

// --------------------------------------------------------------------------------- lane by lane

template <class V>
inline V Zero(V) {
  return V{};
}
template <class H>
inline Pair<H> operator+(Pair<H> x, Pair<H> y) {
  return {x.a + y.a, x.b + y.b};
}
template <class H>
inline Pair<H> operator-(Pair<H> x, Pair<H> y) {
  return {x.a - y.a, x.b - y.b};
}
template <class H>
inline Pair<H> operator*(Pair<H> x, Pair<H> y) {
  return {x.a * y.a, x.b * y.b};
}
template <class V>
inline V Add(V x, V y) {
  return x + y;
}
template <class V>
inline V Sub(V x, V y) {
  return x - y;
}
template <class V>
inline V Mul(V x, V y) {
  return x * y;
}
// x·y + z, rounded once.
template <class H>
inline Pair<H> Fma(Pair<H> x, Pair<H> y, Pair<H> z) {
  return {Fma(x.a, y.a, z.a), Fma(x.b, y.b, z.b)};
}

using Bits = std::uint32_t __attribute__((vector_size(sizeof(F32))));
template <class R>
inline R And(R x, R y) {
  return reinterpret_cast<R>(reinterpret_cast<Bits>(x) & reinterpret_cast<Bits>(y));
}
template <class H>
inline Pair<H> And(Pair<H> x, Pair<H> y) {
  return {And(x.a, y.a), And(x.b, y.b)};
}

// Lanes from m on become zero: `bits` 32-bit lanes and more.
template <class R>
inline R KeepBits(R v, int bits) {
  static constexpr std::int32_t kLane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::int32_t lane __attribute__((vector_size(sizeof(R))));
  __builtin_memcpy(&lane, kLane, sizeof(lane));
  return And(v, reinterpret_cast<R>(lane < bits));
}
template <class H>
inline Pair<H> KeepBits(Pair<H> v, int bits) {
  return {KeepBits(v.a, bits), KeepBits(v.b, bits - static_cast<int>(sizeof(H) / 4))};
}
template <class V>
inline V KeepFirst(V v, int m) {
  return KeepBits(v, m * (16 / kLanesOf<V>));
}
// Lanes below `first` become zero. A mask in memory and an AND: the compiler would fold a mask
// register into the load, and a masked load does not train the hardware's prefetchers. X streamed
// through masked loads came at a quarter of the bandwidth.
alignas(64) constexpr std::uint32_t kZerosThenOnes[32] = {
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
template <class R>
inline R DropBits(R v, int bits) {
  R mask;  // of one register: the address of a whole vector would keep it in memory
  __builtin_memcpy(&mask, kZerosThenOnes + 16 - bits, sizeof(mask));
  return And(v, mask);
}
template <class H>
inline Pair<H> DropBits(Pair<H> v, int bits) {
  return {DropBits(v.a, bits), DropBits(v.b, bits - static_cast<int>(sizeof(H) / 4))};
}
template <class V>
inline V DropFirst(V v, int first) {
  return DropBits(v, first * (16 / kLanesOf<V>));
}

// ----------------------------------------------------------------------------- across the lanes

template <class H>
inline auto Low(Pair<H> v) {
  return Pair<decltype(Low(v.a))>{Low(v.a), High(v.a)};
}
template <class H>
inline auto High(Pair<H> v) {
  return Pair<decltype(Low(v.b))>{Low(v.b), High(v.b)};
}
// Eight elements as doubles.
template <class T>
inline F64x8 LoadF64(const T* p) {
  return Each<double>([p](int lane) {
    if constexpr (std::is_same_v<T, double>) {
      return LoadRegister(p + lane);
    } else if constexpr (kRegisterLanes<T> == 16) {
      return LoadRegisterF64(p);
    } else {
      const F32 v = LoadRegister(p + lane / kRegisterLanes<T> * kRegisterLanes<T>);
      return lane % kRegisterLanes<T> == 0 ? Low(v) : High(v);
    }
  });
}
// Eight doubles, rounded to the type of p.
inline void StoreF64(double* p, F64x8 v) { Store(p, v); }
template <class R>
inline void StoreF64(float* p, R v) {
  typedef float Floats __attribute__((vector_size(sizeof(R) / 2)));
  const Floats rounded = __builtin_convertvector(v, Floats);
  __builtin_memcpy(p, &rounded, sizeof(rounded));
}
template <class H>
inline void StoreF64(float* p, Pair<H> v) {
  StoreF64(p, v.a);
  StoreF64(p + sizeof(v.a) / sizeof(double), v.b);
}

// The even and the odd lanes of x followed by y.
template <class H>
inline void Unzip(Pair<H> x, Pair<H> y, Pair<H>& even, Pair<H>& odd) {
  Unzip(x.a, x.b, even.a, odd.a);
  Unzip(y.a, y.b, even.b, odd.b);
}

// Lane j of v[i] and lane i of v[j] change places, in quarters as wide as a half of a vector.
template <class H, int N>
[[gnu::always_inline]] inline void Transpose(Pair<H> (&v)[N]) {
  H quarter[4][N / 2];
#pragma GCC unroll 4
  for (int i = 0; i < N / 2; ++i) {
    quarter[0][i] = v[i].a;
    quarter[1][i] = v[i].b;
    quarter[2][i] = v[N / 2 + i].a;
    quarter[3][i] = v[N / 2 + i].b;
  }
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) Transpose(quarter[q]);
#pragma GCC unroll 4
  for (int i = 0; i < N / 2; ++i) {
    v[i] = {quarter[0][i], quarter[2][i]};
    v[N / 2 + i] = {quarter[1][i], quarter[3][i]};
  }
}

// Lanes that are pairs of 16-bit elements: the first and the second elements of them.
inline void Split(const BFloat16*, F32 pairs, F32& first, F32& second) {
  const Bits bits = reinterpret_cast<Bits>(pairs);
  first = reinterpret_cast<F32>(bits << 16);
  second = reinterpret_cast<F32>(bits & 0xffff0000u);
}
template <class T, class H>
inline void Split(const T* type, Pair<H> pairs, Pair<H>& first, Pair<H>& second) {
  Split(type, pairs.a, first.a, second.a);
  Split(type, pairs.b, first.b, second.b);
}

// Adjacent lanes of x followed by y, added.
template <class H>
inline Pair<H> AddPairs(Pair<H> x, Pair<H> y) {
  return {AddPairs(x.a, x.b), AddPairs(y.a, y.b)};
}

// Two vectors, each folded in half.
template <class H>
[[gnu::always_inline]] inline Pair<H> FoldTwo(Pair<H> x, Pair<H> y) {
  return {x.a + x.b, y.a + y.b};
}
// Four rows' vectors, each folded in half twice: quarter r of the result adds up to a[r]'s lanes.
template <class H>
[[gnu::always_inline]] inline Pair<H> FoldRows(const Pair<H> (&a)[4]) {
  H half[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) half[r] = a[r].a + a[r].b;
  return {FoldTwo(half[0], half[1]), FoldTwo(half[2], half[3])};
}

// The sum of lanes t, t + P, ... of a vector of type C, which are doubles in memory.
template <class C, int P>
inline double SumLanes(const double* lanes, std::int64_t t) {
  F64x8 sum = Load(lanes);
  if constexpr (kLanes<C> == 16) sum = Add(sum, Load(lanes + 8));
  double v[8];
  Store(v, sum);
  for (int count = 8 / P; count > 1; count /= 2) {
    for (int i = 0; i < count / 2; ++i) v[i * P + t] = v[2 * i * P + t] + v[(2 * i + 1) * P + t];
  }
  return v[t];
}
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
  C group[G];
  __builtin_memcpy(group, kZerosThenOnes + 16 - (G - kept) * (sizeof(C) / 4), sizeof(group));
  return SetGroup<G>(group);
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

// As many columns of W rows of D elements as a register has lanes, by the transpositions of two
// blocks of rows.
template <int D, class T, class H>
[[gnu::always_inline]] inline void LoadBlock(const T* x, Pair<H>* column) {
  constexpr int R = kRegisterLanes<T>;
  H first[R], second[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    first[i] = LoadRegister(x + i * D);
    second[i] = LoadRegister(x + (R + i) * D);
  }
  Transpose(first);
  Transpose(second);
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) column[i] = {first[i], second[i]};
}

// The columns of W rows of D elements; as many vectors as the next power of two. May read up to W
// elements beyond the rows.
template <int D, class T, class V, int N>
[[gnu::always_inline]] inline void LoadColumns(const T* x, V (&column)[N]) {
  static_assert(N >= PowerOfTwo(D));
  constexpr int W = kLanes<T>;
  constexpr int P = PowerOfTwo(D);
  if constexpr (kTransposes<T, D>) {
#pragma GCC unroll 4
    for (int j = 0; j < D; j += kBlock<T>) LoadBlock<D>(x + j, column + j);
  } else {
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
