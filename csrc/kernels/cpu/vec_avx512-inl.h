// The vector vocabulary over AVX-512 (F, BW, DQ, VL). The other vec_*-inl.h define the same
// operations with the same results, bit for bit.
//
// The virtual vector is 64 bytes everywhere: 16 floats or 8 doubles. 16-bit types load as floats.
#pragma once

#ifdef LINREG_OPS_EMULATED_AVX512
#include "avx512_emulation.h"  // in tests/cpp
#else
#include <immintrin.h>
#endif

#include <cstdint>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/row_table-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

struct F32x16 {
  __m512 v;
};
struct F64x8 {
  __m512d v;
};

// How many virtual accumulators the register file holds beside operands.
constexpr int kAccumulators = 24;

inline F32x16 Zero(F32x16) { return {_mm512_setzero_ps()}; }
inline F64x8 Zero(F64x8) { return {_mm512_setzero_pd()}; }
inline F32x16 Set(float a) { return {_mm512_set1_ps(a)}; }
inline F64x8 Set(double a) { return {_mm512_set1_pd(a)}; }

inline __m512 FromHalf(__m256i h) { return _mm512_cvtph_ps(h); }
inline __m512 FromBFloat16(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
inline __m256i Bits16(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline F32x16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F64x8 Load(const double* p) { return {_mm512_loadu_pd(p)}; }
inline F32x16 Load(const Half* p) { return {FromHalf(Bits16(p))}; }
inline F32x16 Load(const BFloat16* p) { return {FromBFloat16(Bits16(p))}; }

// G elements from p, repeated over the lanes.
template <int G>
inline F32x16 SetGroup(const float* p) {
  if constexpr (G == 2) {
    double both;
    __builtin_memcpy(&both, p, 8);
    return {_mm512_castpd_ps(_mm512_set1_pd(both))};
  } else if constexpr (G == 4) {
    return {_mm512_broadcast_f32x4(_mm_loadu_ps(p))};
  } else {
    return {_mm512_broadcast_f32x8(_mm256_loadu_ps(p))};
  }
}
template <int G>
inline F64x8 SetGroup(const double* p) {
  if constexpr (G == 1) {
    return {_mm512_set1_pd(*p)};
  } else if constexpr (G == 2) {
    return {_mm512_broadcast_f64x2(_mm_loadu_pd(p))};
  } else {
    return {_mm512_broadcast_f64x4(_mm256_loadu_pd(p))};
  }
}
template <int G, class T>
inline __m256i Groups16(const T* p) {
  __m128i bits = _mm_setzero_si128();
  __builtin_memcpy(&bits, p, 2 * G);
  if constexpr (G == 2) return _mm256_broadcastd_epi32(bits);
  if constexpr (G == 4) return _mm256_broadcastq_epi64(bits);
  return _mm256_broadcastsi128_si256(bits);
}
template <int G>
inline F32x16 SetGroup(const Half* p) {
  return {FromHalf(Groups16<G>(p))};
}
template <int G>
inline F32x16 SetGroup(const BFloat16* p) {
  return {FromBFloat16(Groups16<G>(p))};
}

// Lanes 0 ... m−1 from p, zeros after; reads nothing beyond p + m.
inline F32x16 LoadFirst(const float* p, int m) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << m) - 1), p)};
}
inline F64x8 LoadFirst(const double* p, int m) {
  return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << m) - 1), p)};
}
inline F32x16 LoadFirst(const Half* p, int m) {
  return {FromHalf(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << m) - 1), p))};
}
inline F32x16 LoadFirst(const BFloat16* p, int m) {
  return {FromBFloat16(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << m) - 1), p))};
}

// Lanes below `first`, or from m on, become zero. An AND and not a mask register: the compiler
// would fold that into the load, and a masked load does not train the hardware's prefetchers. X
// streamed through masked loads came at a quarter of the bandwidth.
inline F32x16 DropFirst(F32x16 a, int first) {
  const __m512i keep = _mm512_movm_epi32(static_cast<__mmask16>(0xffffu << first));
  return {_mm512_and_ps(a.v, _mm512_castsi512_ps(keep))};
}
inline F64x8 DropFirst(F64x8 a, int first) {
  const __m512i keep = _mm512_movm_epi64(static_cast<__mmask8>(0xffu << first));
  return {_mm512_and_pd(a.v, _mm512_castsi512_pd(keep))};
}
inline F32x16 KeepFirst(F32x16 a, int m) {
  const __m512i keep = _mm512_movm_epi32(static_cast<__mmask16>((1u << m) - 1));
  return {_mm512_and_ps(a.v, _mm512_castsi512_ps(keep))};
}
inline F64x8 KeepFirst(F64x8 a, int m) {
  const __m512i keep = _mm512_movm_epi64(static_cast<__mmask8>((1u << m) - 1));
  return {_mm512_and_pd(a.v, _mm512_castsi512_pd(keep))};
}

// Eight elements as doubles.
inline F64x8 LoadF64(const double* p) { return Load(p); }
inline F64x8 LoadF64(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
inline F64x8 LoadF64(const Half* p) {
  return {_mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F64x8 LoadF64(const BFloat16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)))};
}

inline void Store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
inline void Store(double* p, F64x8 a) { _mm512_storeu_pd(p, a.v); }
// Eight doubles, rounded to the type of p.
inline void StoreF64(double* p, F64x8 a) { Store(p, a); }
inline void StoreF64(float* p, F64x8 a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a.v)); }

inline F32x16 Add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F64x8 Add(F64x8 a, F64x8 b) { return {_mm512_add_pd(a.v, b.v)}; }
inline F32x16 Sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F64x8 Sub(F64x8 a, F64x8 b) { return {_mm512_sub_pd(a.v, b.v)}; }
inline F32x16 Mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F64x8 Mul(F64x8 a, F64x8 b) { return {_mm512_mul_pd(a.v, b.v)}; }
// a·b + c, rounded once.
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F64x8 Fma(F64x8 a, F64x8 b, F64x8 c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }

// Bit by bit, with a mask of all ones or all zeros in each lane.
inline F32x16 And(F32x16 a, F32x16 b) { return {_mm512_and_ps(a.v, b.v)}; }
inline F64x8 And(F64x8 a, F64x8 b) { return {_mm512_and_pd(a.v, b.v)}; }

inline F64x8 Low(F32x16 a) { return {_mm512_cvtps_pd(_mm512_castps512_ps256(a.v))}; }
inline F64x8 High(F32x16 a) { return {_mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1))}; }

// The even and the odd lanes of a followed by b.
inline void Unzip(F32x16 a, F32x16 b, F32x16& even, F32x16& odd) {
  const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even.v = _mm512_permutex2var_ps(a.v, e, b.v);
  odd.v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b.v);
}
inline void Unzip(F64x8 a, F64x8 b, F64x8& even, F64x8& odd) {
  const __m512i e = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  even.v = _mm512_permutex2var_pd(a.v, e, b.v);
  odd.v = _mm512_permutex2var_pd(a.v, _mm512_add_epi64(e, _mm512_set1_epi64(1)), b.v);
}

// Lanes that are pairs of 16-bit elements: the first and the second elements of them.
inline void Split(const Half*, F32x16 pairs, F32x16& first, F32x16& second) {
  alignas(64) static constexpr std::int16_t kFirstThenSecond[32] = {
      0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
      1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const __m512i v =
      _mm512_permutexvar_epi16(_mm512_load_si512(kFirstThenSecond), _mm512_castps_si512(pairs.v));
  first.v = FromHalf(_mm512_castsi512_si256(v));
  second.v = FromHalf(_mm512_extracti64x4_epi64(v, 1));
}
inline void Split(const BFloat16*, F32x16 pairs, F32x16& first, F32x16& second) {
  const __m512i v = _mm512_castps_si512(pairs.v);
  first.v = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
  second.v = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(~0xffff)));
}

// Rows of D elements, each spread to the next power of two P: lane i holds column i % P of row
// i / P, or anything if there is no such column. Reads a whole vector.
template <int D, int P, class T>
inline F32x16 LoadRows(const T* p) {
  if constexpr (D == P) return Load(p);
  alignas(64) static constexpr RowTable<std::int32_t, 16, D, P> kTable;
  return {_mm512_permutexvar_ps(_mm512_load_si512(kTable.index), Load(p).v)};
}
template <int D, int P>
inline F64x8 LoadRows(const double* p) {
  if constexpr (D == P) return Load(p);
  alignas(64) static constexpr RowTable<std::int64_t, 8, D, P> kTable;
  return {_mm512_permutexvar_pd(_mm512_load_si512(kTable.index), Load(p).v)};
}

// Lane j of v[i] and lane i of v[j] change places. Each round puts the last of the six bits of an
// element's number before the others.
[[gnu::always_inline]] inline void Transpose(F64x8 (&v)[8]) {
#pragma GCC unroll 3
  for (int round = 0; round < 3; ++round) {
    F64x8 to[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) Unzip(v[2 * i], v[2 * i + 1], to[i], to[4 + i]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = to[i];
  }
}

// Not left to the inliner: GCC takes a function that only fetches for one without effect and drops
// the call.
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
