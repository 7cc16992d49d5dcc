// AVX-512 on machines without it, to hold its unit to the others' bits: SIMDe's emulation, and what
// vec_avx512-inl.h needs that it lacks.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#include <cstdint>
#include <cstring>

namespace avx512_emulation {

template <class To, class From, class Element, int N, class Convert>
inline To Each(const From& from, const Convert& convert) {
  Element in[N];
  std::memcpy(in, &from, sizeof(in));
  decltype(convert(in[0])) out[N];
  for (int i = 0; i < N; ++i) out[i] = convert(in[i]);
  To to;
  static_assert(sizeof(to) == sizeof(out));
  std::memcpy(&to, out, sizeof(out));
  return to;
}
template <class To, class Element>
inline To First(unsigned mask, const void* p) {
  To to;
  std::memset(&to, 0, sizeof(to));
  for (std::size_t i = 0; i < sizeof(To) / sizeof(Element); ++i) {
    if ((mask >> i & 1) != 0) {
      std::memcpy(reinterpret_cast<char*>(&to) + i * sizeof(Element),
                  static_cast<const char*>(p) + i * sizeof(Element), sizeof(Element));
    }
  }
  return to;
}
inline simde__m512 FromHalf(__m256i h) {
  const __m256 both[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                          _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
  simde__m512 to;
  std::memcpy(&to, both, sizeof(to));
  return to;
}
inline __m256 Half512(simde__m512 v, int half) {
  __m256 to;
  std::memcpy(&to, reinterpret_cast<const char*>(&v) + 32 * half, sizeof(to));
  return to;
}

}  // namespace avx512_emulation

#define _mm512_cvtph_ps(h) avx512_emulation::FromHalf(h)
#define _mm512_cvtepu16_epi32(h)                                     \
  (avx512_emulation::Each<simde__m512i, __m256i, std::uint16_t, 16>( \
      h, [](std::uint16_t a) { return static_cast<std::uint32_t>(a); }))
#define _mm512_cvtps_pd(v)                                 \
  (avx512_emulation::Each<simde__m512d, __m256, float, 8>( \
      v, [](float a) { return static_cast<double>(a); }))
#define _mm512_extractf32x8_ps(v, half) avx512_emulation::Half512(v, half)
#define _mm512_maskz_loadu_ps(m, p) (avx512_emulation::First<simde__m512, float>(m, p))
#define _mm512_maskz_loadu_pd(m, p) (avx512_emulation::First<simde__m512d, double>(m, p))
#define _mm256_maskz_loadu_epi16(m, p) (avx512_emulation::First<__m256i, std::uint16_t>(m, p))
#undef _mm512_shuffle_f32x4  // a macro where GCC does not optimize
#define _mm512_shuffle_f32x4(a, b, blocks) simde_mm512_shuffle_f32x4(a, b, blocks)
