// Registers of AVX-512 (F, BW, DQ, VL): see vec-inl.h, which says what each operation does.
#pragma once

#ifdef LINREG_OPS_EMULATED_AVX512
#include "avx512_emulation.h"  // in tests/cpp
#else
#include <immintrin.h>
#endif

#include <cstdint>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

typedef float F32 __attribute__((vector_size(64)));
typedef double F64 __attribute__((vector_size(64)));
constexpr int kAccumulators = 24;

inline F32 Floats(const Half*, __m256i bits) { return _mm512_cvtph_ps(bits); }
inline F32 Floats(const BFloat16*, __m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline F32 LoadRegister(const float* p) { return _mm512_loadu_ps(p); }
inline F64 LoadRegister(const double* p) { return _mm512_loadu_pd(p); }
template <class T>
inline F32 LoadRegister(const T* p) {
  return Floats(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

template <class T>
constexpr bool kMaskedLoads = true;
inline F32 LoadRegisterFirst(const float* p, int m) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << m) - 1), p);
}
inline F64 LoadRegisterFirst(const double* p, int m) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << m) - 1), p);
}
template <class T>
inline F32 LoadRegisterFirst(const T* p, int m) {
  return Floats(p, _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << m) - 1), p));
}

inline F32 SetRegister(float a) { return _mm512_set1_ps(a); }
inline F64 SetRegister(double a) { return _mm512_set1_pd(a); }

template <int G, class T>
inline __m512i Repeat(const T* p) {
  if constexpr (sizeof(T) * G == 32) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  __m128i bits = _mm_setzero_si128();
  __builtin_memcpy(&bits, p, sizeof(T) * G);
  if constexpr (sizeof(T) * G == 4) return _mm512_broadcastd_epi32(bits);
  if constexpr (sizeof(T) * G == 8) return _mm512_broadcastq_epi64(bits);
  return _mm512_broadcast_i32x4(bits);
}
template <int G>
inline F32 SetRegisterGroup(const float* p) {
  return _mm512_castsi512_ps(Repeat<G>(p));
}
template <int G>
inline F64 SetRegisterGroup(const double* p) {
  return _mm512_castsi512_pd(Repeat<G>(p));
}
template <int G, class T>
inline F32 SetRegisterGroup(const T* p) {
  return Floats(p, _mm512_castsi512_si256(Repeat<G>(p)));
}
// Moved by one shuffle to where the upper half of a float is: to widen and to shift are two.
template <int G>
inline F32 SetRegisterGroup(const BFloat16* p) {
  alignas(64) static constexpr UpperHalves<64, G> kTo;
  return _mm512_castsi512_ps(_mm512_shuffle_epi8(Repeat<G>(p), _mm512_load_si512(kTo.byte)));
}

inline F32 Fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
inline F64 Fma(F64 a, F64 b, F64 c) { return _mm512_fmadd_pd(a, b, c); }

inline F64 Low(F32 a) { return _mm512_cvtps_pd(_mm512_castps512_ps256(a)); }
inline F64 High(F32 a) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)); }

// Eight elements as doubles.
inline F64 LoadRegisterF64(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
template <class T>
inline F64 LoadRegisterF64(const T* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return Low(Floats(p, _mm256_castsi128_si256(bits)));
}

inline void Unzip(F32 a, F32 b, F32& even, F32& odd) {
  const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even = _mm512_permutex2var_ps(a, e, b);
  odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}
inline void Unzip(F64 a, F64 b, F64& even, F64& odd) {
  const __m512i e = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  even = _mm512_permutex2var_pd(a, e, b);
  odd = _mm512_permutex2var_pd(a, _mm512_add_epi64(e, _mm512_set1_epi64(1)), b);
}

template <class R>
inline R AddPairs(R a, R b) {
  R even, odd;
  Unzip(a, b, even, odd);
  return even + odd;
}

// Each round puts the last of the six bits of an element's number before the others.
[[gnu::always_inline]] inline void Transpose(F64 (&v)[8]) {
#pragma GCC unroll 3
  for (int round = 0; round < 3; ++round) {
    F64 to[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) Unzip(v[2 * i], v[2 * i + 1], to[i], to[4 + i]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = to[i];
  }
}

template <int kBlocks, class R>
inline R Blocks(R x, R y) {
  return reinterpret_cast<R>(
      _mm512_shuffle_f32x4(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(y), kBlocks));
}
template <class R>
[[gnu::always_inline]] inline R FoldRows(const R (&a)[4]) {
  const R first = Blocks<0x44>(a[0], a[1]) + Blocks<0xee>(a[0], a[1]);
  const R second = Blocks<0x44>(a[2], a[3]) + Blocks<0xee>(a[2], a[3]);
  return Blocks<0x88>(first, second) + Blocks<0xdd>(first, second);
}

// Whether D columns are loaded in blocks of kBlock, which costs less than Unzip then.
template <class T, int D>
constexpr bool kTransposes = sizeof(T) >= 4 && D * sizeof(T) > 32;
template <class T>
constexpr int kBlock = 16 / sizeof(T);

// 16 bytes of every `step`-th of 4·step rows, from p on: half of the shuffles are loads.
template <class R, class T>
inline R LoadQuarters(const T* p, std::int64_t step) {
  const auto quarter = [&](int i) __attribute__((always_inline)) {
    return _mm_loadu_ps(reinterpret_cast<const float*>(p + i * step));
  };
  __m512 v = _mm512_castps128_ps512(quarter(0));
  v = _mm512_insertf32x4(v, quarter(1), 1);
  v = _mm512_insertf32x4(v, quarter(2), 2);
  return reinterpret_cast<R>(_mm512_insertf32x4(v, quarter(3), 3));
}
template <int D>
[[gnu::always_inline]] inline void LoadBlock(const float* x, F32* column) {
  F32 row[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) row[i] = LoadQuarters<F32>(x + i * D, 4 * D);
  const F64 a = reinterpret_cast<F64>(_mm512_unpacklo_ps(row[0], row[1]));
  const F64 b = reinterpret_cast<F64>(_mm512_unpacklo_ps(row[2], row[3]));
  const F64 c = reinterpret_cast<F64>(_mm512_unpackhi_ps(row[0], row[1]));
  const F64 d = reinterpret_cast<F64>(_mm512_unpackhi_ps(row[2], row[3]));
  column[0] = reinterpret_cast<F32>(_mm512_unpacklo_pd(a, b));
  column[1] = reinterpret_cast<F32>(_mm512_unpackhi_pd(a, b));
  column[2] = reinterpret_cast<F32>(_mm512_unpacklo_pd(c, d));
  column[3] = reinterpret_cast<F32>(_mm512_unpackhi_pd(c, d));
}
template <int D>
[[gnu::always_inline]] inline void LoadBlock(const double* x, F64* column) {
  const F64 even = LoadQuarters<F64>(x, 2 * D), odd = LoadQuarters<F64>(x + D, 2 * D);
  column[0] = _mm512_unpacklo_pd(even, odd);
  column[1] = _mm512_unpackhi_pd(even, odd);
}
inline void Split(const Half* type, F32 pairs, F32& first, F32& second) {
  alignas(64) static constexpr std::int16_t kFirstThenSecond[32] = {
      0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
      1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const __m512i v =
      _mm512_permutexvar_epi16(_mm512_load_si512(kFirstThenSecond), _mm512_castps_si512(pairs));
  first = Floats(type, _mm512_castsi512_si256(v));
  second = Floats(type, _mm512_extracti64x4_epi64(v, 1));
}

// Lane i is lane i / P.
template <int P>
inline F32 SpreadLanes(F32 v) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutexvar_ps(_mm512_srli_epi32(lane, P == 2 ? 1 : P == 4 ? 2 : 3), v);
}
template <int P>
inline F64 SpreadLanes(F64 v) {
  const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm512_permutexvar_pd(_mm512_srli_epi64(lane, P == 2 ? 1 : 2), v);
}

inline F32 Permute(F32 a, const std::int32_t* index) {
  return _mm512_permutexvar_ps(_mm512_load_si512(index), a);
}
inline F64 Permute(F64 a, const std::int64_t* index) {
  return _mm512_permutexvar_pd(_mm512_load_si512(index), a);
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
