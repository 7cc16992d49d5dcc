// Registers of AVX2, FMA and F16C: see vec-inl.h, which says what each operation does.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

typedef float F32 __attribute__((vector_size(32)));
typedef double F64 __attribute__((vector_size(32)));
constexpr int kAccumulators = 6;

inline F32 Floats(const Half*, __m128i bits) { return _mm256_cvtph_ps(bits); }
inline F32 Floats(const BFloat16*, __m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline F32 LoadRegister(const float* p) { return _mm256_loadu_ps(p); }
inline F64 LoadRegister(const double* p) { return _mm256_loadu_pd(p); }
template <class T>
inline F32 LoadRegister(const T* p) {
  return Floats(p, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Lanes below m are all ones.
inline __m256i Below32(int m) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(m), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline F32 LoadRegisterFirst(const float* p, int m) { return _mm256_maskload_ps(p, Below32(m)); }
inline F64 LoadRegisterFirst(const double* p, int m) {
  return _mm256_maskload_pd(p, Below32(2 * m));
}
template <class T>
constexpr bool kMaskedLoads = sizeof(T) > 2;

inline F32 SetRegister(float a) { return _mm256_set1_ps(a); }
inline F64 SetRegister(double a) { return _mm256_set1_pd(a); }

template <int G, class T>
inline __m256i Repeat(const T* p) {
  __m128i bits = _mm_setzero_si128();
  __builtin_memcpy(&bits, p, sizeof(T) * G);
  if constexpr (sizeof(T) * G == 4) return _mm256_broadcastd_epi32(bits);
  if constexpr (sizeof(T) * G == 8) return _mm256_broadcastq_epi64(bits);
  return _mm256_broadcastsi128_si256(bits);
}
template <int G>
inline F32 SetRegisterGroup(const float* p) {
  return _mm256_castsi256_ps(Repeat<G>(p));
}
template <int G>
inline F64 SetRegisterGroup(const double* p) {
  return _mm256_castsi256_pd(Repeat<G>(p));
}
template <int G, class T>
inline F32 SetRegisterGroup(const T* p) {
  return Floats(p, _mm256_castsi256_si128(Repeat<G>(p)));
}
// Moved by one shuffle to where the upper half of a float is: to widen and to shift are two.
template <int G>
inline F32 SetRegisterGroup(const BFloat16* p) {
  alignas(32) static constexpr UpperHalves<32, G> kTo;
  const __m256i to = _mm256_load_si256(reinterpret_cast<const __m256i*>(kTo.byte));
  return _mm256_castsi256_ps(_mm256_shuffle_epi8(Repeat<G>(p), to));
}

inline F32 Fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
inline F64 Fma(F64 a, F64 b, F64 c) { return _mm256_fmadd_pd(a, b, c); }

inline F64 Low(F32 a) { return _mm256_cvtps_pd(_mm256_castps256_ps128(a)); }
inline F64 High(F32 a) { return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)); }

template <class R>
inline R FoldTwo(R x, R y) {
  const __m256 a = reinterpret_cast<__m256>(x), b = reinterpret_cast<__m256>(y);
  return reinterpret_cast<R>(_mm256_permute2f128_ps(a, b, 0x20)) +
         reinterpret_cast<R>(_mm256_permute2f128_ps(a, b, 0x31));
}

// Shuffles work within 128-bit halves: what they leave is in this order.
template <class R>
inline R MendOrder(R v) {
  const __m256d d = reinterpret_cast<__m256d>(v);
  return reinterpret_cast<R>(_mm256_permute4x64_pd(d, _MM_SHUFFLE(3, 1, 2, 0)));
}
inline void Unzip(F32 a, F32 b, F32& even, F32& odd) {
  even = MendOrder<F32>(_mm256_shuffle_ps(a, b, 0x88));
  odd = MendOrder<F32>(_mm256_shuffle_ps(a, b, 0xdd));
}
inline void Unzip(F64 a, F64 b, F64& even, F64& odd) {
  even = MendOrder<F64>(_mm256_unpacklo_pd(a, b));
  odd = MendOrder<F64>(_mm256_unpackhi_pd(a, b));
}
inline F32 AddPairs(F32 a, F32 b) { return MendOrder<F32>(_mm256_hadd_ps(a, b)); }
inline F64 AddPairs(F64 a, F64 b) { return MendOrder<F64>(_mm256_hadd_pd(a, b)); }

// Whether D columns are loaded in blocks of kBlock, which costs less than Unzip then.
template <class T, int D>
constexpr bool kTransposes = D * sizeof(Compute<T>) > 16;
template <class T>
constexpr int kBlock = 32 / sizeof(Compute<T>);
[[gnu::always_inline]] inline void Transpose(F32 (&v)[8]) {
  F32 a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}
[[gnu::always_inline]] inline void Transpose(F64 (&v)[4]) {
  const F64 even[2] = {_mm256_unpacklo_pd(v[0], v[1]), _mm256_unpacklo_pd(v[2], v[3])};
  const F64 odd[2] = {_mm256_unpackhi_pd(v[0], v[1]), _mm256_unpackhi_pd(v[2], v[3])};
  v[0] = _mm256_permute2f128_pd(even[0], even[1], 0x20);
  v[1] = _mm256_permute2f128_pd(odd[0], odd[1], 0x20);
  v[2] = _mm256_permute2f128_pd(even[0], even[1], 0x31);
  v[3] = _mm256_permute2f128_pd(odd[0], odd[1], 0x31);
}

inline void Split(const Half* type, F32 pairs, F32& first, F32& second) {
  const __m256i index = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                         0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i v = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(_mm256_castps_si256(pairs), index),
                                             _MM_SHUFFLE(3, 1, 2, 0));
  first = Floats(type, _mm256_castsi256_si128(v));
  second = Floats(type, _mm256_extracti128_si256(v, 1));
}

// Lane i is lane i / P.
template <int P>
inline F32 SpreadLanes(F32 v) {
  return _mm256_permutevar8x32_ps(v, P == 2 ? _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)
                                            : _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}
template <int P>
inline F64 SpreadLanes(F64 v) {
  static_assert(P == 2);
  return _mm256_permute4x64_pd(v, _MM_SHUFFLE(1, 1, 0, 0));
}

inline F32 Permute(F32 a, const std::int32_t* index) {
  return _mm256_permutevar8x32_ps(a, _mm256_load_si256(reinterpret_cast<const __m256i*>(index)));
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
