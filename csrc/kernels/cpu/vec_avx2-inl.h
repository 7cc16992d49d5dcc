// The vector vocabulary over AVX2, FMA and F16C: a virtual vector is two registers. What each
// operation does is said in vec_avx512-inl.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/row_table-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

struct F32x16 {
  __m256 a, b;
};
struct F64x8 {
  __m256d a, b;
};

constexpr int kAccumulators = 6;

inline F32x16 Zero(F32x16) { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F64x8 Zero(F64x8) { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
inline F32x16 Set(float s) {
  const __m256 v = _mm256_set1_ps(s);
  return {v, v};
}
inline F64x8 Set(double s) {
  const __m256d v = _mm256_set1_pd(s);
  return {v, v};
}

inline __m256 EightFrom(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 EightFrom(const Half* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256 EightFrom(const BFloat16* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

inline F32x16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F64x8 Load(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
inline F32x16 Load(const Half* p) { return {EightFrom(p), EightFrom(p + 8)}; }
inline F32x16 Load(const BFloat16* p) { return {EightFrom(p), EightFrom(p + 8)}; }

template <int G>
inline F32x16 SetGroup(const float* p) {
  __m256 v;
  if constexpr (G == 2) {
    double both;
    __builtin_memcpy(&both, p, 8);
    v = _mm256_castpd_ps(_mm256_set1_pd(both));
  } else if constexpr (G == 4) {
    v = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  } else {
    v = _mm256_loadu_ps(p);
  }
  return {v, v};
}
template <int G>
inline F64x8 SetGroup(const double* p) {
  __m256d v;
  if constexpr (G == 1) {
    v = _mm256_set1_pd(*p);
  } else if constexpr (G == 2) {
    v = _mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
  } else {
    v = _mm256_loadu_pd(p);
  }
  return {v, v};
}
template <int G, class T>
inline F32x16 SetGroup(const T* p) {
  __m128i bits = _mm_setzero_si128();
  __builtin_memcpy(&bits, p, 2 * G);
  if constexpr (G == 2) bits = _mm_broadcastd_epi32(bits);
  if constexpr (G == 4) bits = _mm_broadcastq_epi64(bits);
  T groups[8];
  __builtin_memcpy(groups, &bits, 16);
  const __m256 v = EightFrom(groups);
  return {v, v};
}

// Masks whose lanes are all ones where lane number + offset < m.
inline __m256i Below32(int m, int offset) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(m - offset), lane);
}
inline __m256i Below64(int m, int offset) {
  const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(m - offset), lane);
}

inline F32x16 LoadFirst(const float* p, int m) {
  return {_mm256_maskload_ps(p, Below32(m, 0)), _mm256_maskload_ps(p + 8, Below32(m, 8))};
}
inline F64x8 LoadFirst(const double* p, int m) {
  return {_mm256_maskload_pd(p, Below64(m, 0)), _mm256_maskload_pd(p + 4, Below64(m, 4))};
}
// AVX2 has no 16-bit masked load.
template <class T>
inline F32x16 LoadFirst(const T* p, int m) {
  alignas(32) T buffer[16] = {};
  for (int i = 0; i < m; ++i) buffer[i] = p[i];
  return Load(buffer);
}

inline F32x16 DropFirst(F32x16 v, int first) {
  return {_mm256_andnot_ps(_mm256_castsi256_ps(Below32(first, 0)), v.a),
          _mm256_andnot_ps(_mm256_castsi256_ps(Below32(first, 8)), v.b)};
}
inline F64x8 DropFirst(F64x8 v, int first) {
  return {_mm256_andnot_pd(_mm256_castsi256_pd(Below64(first, 0)), v.a),
          _mm256_andnot_pd(_mm256_castsi256_pd(Below64(first, 4)), v.b)};
}
inline F32x16 KeepFirst(F32x16 v, int m) {
  return {_mm256_and_ps(_mm256_castsi256_ps(Below32(m, 0)), v.a),
          _mm256_and_ps(_mm256_castsi256_ps(Below32(m, 8)), v.b)};
}

inline F64x8 Widen(__m256 v) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
}
inline F64x8 LoadF64(const double* p) { return Load(p); }
inline F64x8 LoadF64(const float* p) {
  return {_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))};
}
template <class T>
inline F64x8 LoadF64(const T* p) {
  return Widen(EightFrom(p));
}

inline void Store(float* p, F32x16 v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
inline void Store(double* p, F64x8 v) {
  _mm256_storeu_pd(p, v.a);
  _mm256_storeu_pd(p + 4, v.b);
}
inline void StoreF64(double* p, F64x8 v) { Store(p, v); }
inline void StoreF64(float* p, F64x8 v) {
  _mm_storeu_ps(p, _mm256_cvtpd_ps(v.a));
  _mm_storeu_ps(p + 4, _mm256_cvtpd_ps(v.b));
}

inline F32x16 Add(F32x16 x, F32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F64x8 Add(F64x8 x, F64x8 y) { return {_mm256_add_pd(x.a, y.a), _mm256_add_pd(x.b, y.b)}; }
inline F32x16 Sub(F32x16 x, F32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F64x8 Sub(F64x8 x, F64x8 y) { return {_mm256_sub_pd(x.a, y.a), _mm256_sub_pd(x.b, y.b)}; }
inline F32x16 Mul(F32x16 x, F32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F64x8 Mul(F64x8 x, F64x8 y) { return {_mm256_mul_pd(x.a, y.a), _mm256_mul_pd(x.b, y.b)}; }
inline F32x16 Fma(F32x16 x, F32x16 y, F32x16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F64x8 Fma(F64x8 x, F64x8 y, F64x8 z) {
  return {_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b)};
}

inline F32x16 And(F32x16 x, F32x16 y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
inline F64x8 And(F64x8 x, F64x8 y) { return {_mm256_and_pd(x.a, y.a), _mm256_and_pd(x.b, y.b)}; }

inline F64x8 Low(F32x16 v) { return Widen(v.a); }
inline F64x8 High(F32x16 v) { return Widen(v.b); }

inline F64x8 KeepFirst(F64x8 v, int m) {
  return {_mm256_and_pd(_mm256_castsi256_pd(Below64(m, 0)), v.a),
          _mm256_and_pd(_mm256_castsi256_pd(Below64(m, 4)), v.b)};
}

// Even and odd lanes of two registers: the shuffle works within 128-bit halves, the permute mends
// the order.
template <int kShuffle>
inline __m256 Pick(__m256 a, __m256 b) {
  const __m256d s = _mm256_castps_pd(_mm256_shuffle_ps(a, b, kShuffle));
  return _mm256_castpd_ps(_mm256_permute4x64_pd(s, _MM_SHUFFLE(3, 1, 2, 0)));
}
template <int kShuffle>
inline __m256d Pick(__m256d a, __m256d b) {
  return _mm256_permute4x64_pd(_mm256_shuffle_pd(a, b, kShuffle), _MM_SHUFFLE(3, 1, 2, 0));
}
inline void Unzip(F32x16 x, F32x16 y, F32x16& even, F32x16& odd) {
  const F32x16 e = {Pick<0x88>(x.a, x.b), Pick<0x88>(y.a, y.b)};
  const F32x16 o = {Pick<0xdd>(x.a, x.b), Pick<0xdd>(y.a, y.b)};
  even = e;
  odd = o;
}
inline void Unzip(F64x8 x, F64x8 y, F64x8& even, F64x8& odd) {
  const F64x8 e = {Pick<0x0>(x.a, x.b), Pick<0x0>(y.a, y.b)};
  const F64x8 o = {Pick<0xf>(x.a, x.b), Pick<0xf>(y.a, y.b)};
  even = e;
  odd = o;
}

inline void SplitEight(const Half*, __m256 pairs, __m256& first, __m256& second) {
  const __m256i index = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                         0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i v = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(_mm256_castps_si256(pairs), index),
                                             _MM_SHUFFLE(3, 1, 2, 0));
  first = _mm256_cvtph_ps(_mm256_castsi256_si128(v));
  second = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
}
inline void SplitEight(const BFloat16*, __m256 pairs, __m256& first, __m256& second) {
  const __m256i v = _mm256_castps_si256(pairs);
  first = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
  second = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(~0xffff)));
}
template <class T>
inline void Split(const T* type, F32x16 pairs, F32x16& first, F32x16& second) {
  SplitEight(type, pairs.a, first.a, second.a);
  SplitEight(type, pairs.b, first.b, second.b);
}

// A register takes 8 / P rows, which begin wherever they begin.
template <int D, int P, class T>
inline F32x16 LoadRows(const T* p) {
  if constexpr (D == P) return Load(p);
  alignas(32) static constexpr RowTable<std::int32_t, 8, D, P> kTable;
  const __m256i index = _mm256_load_si256(reinterpret_cast<const __m256i*>(kTable.index));
  return {_mm256_permutevar8x32_ps(EightFrom(p), index),
          _mm256_permutevar8x32_ps(EightFrom(p + 8 / P * D), index)};
}
template <int D, int P>
inline F64x8 LoadRows(const double* p) {
  return {_mm256_loadu_pd(p), _mm256_loadu_pd(P == 4 ? p + D : p + 4)};
}

[[gnu::always_inline]] inline void TransposeFour(__m256d a, __m256d b, __m256d c, __m256d d,
                                                 __m256d (&to)[4]) {
  const __m256d ab_even = _mm256_unpacklo_pd(a, b), ab_odd = _mm256_unpackhi_pd(a, b);
  const __m256d cd_even = _mm256_unpacklo_pd(c, d), cd_odd = _mm256_unpackhi_pd(c, d);
  to[0] = _mm256_permute2f128_pd(ab_even, cd_even, 0x20);
  to[1] = _mm256_permute2f128_pd(ab_odd, cd_odd, 0x20);
  to[2] = _mm256_permute2f128_pd(ab_even, cd_even, 0x31);
  to[3] = _mm256_permute2f128_pd(ab_odd, cd_odd, 0x31);
}
[[gnu::always_inline]] inline void Transpose(F64x8 (&v)[8]) {
  __m256d a[4], b[4], c[4], d[4];
  TransposeFour(v[0].a, v[1].a, v[2].a, v[3].a, a);
  TransposeFour(v[4].a, v[5].a, v[6].a, v[7].a, b);
  TransposeFour(v[0].b, v[1].b, v[2].b, v[3].b, c);
  TransposeFour(v[4].b, v[5].b, v[6].b, v[7].b, d);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = {a[i], b[i]};
    v[4 + i] = {c[i], d[i]};
  }
}

[[gnu::always_inline]] inline void Prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
// Non-temporal: does not displace what L2 holds.
[[gnu::always_inline]] inline void PrefetchOnce(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_NTA);
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
