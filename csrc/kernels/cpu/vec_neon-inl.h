// Registers of AArch64 NEON: see vec-inl.h, which says what each operation does.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

typedef float F32 __attribute__((vector_size(16)));
typedef double F64 __attribute__((vector_size(16)));
constexpr int kAccumulators = 6;

inline F32 Floats(const Half*, uint16x4_t bits) { return vcvt_f32_f16(vreinterpret_f16_u16(bits)); }
inline F32 Floats(const BFloat16*, uint16x4_t bits) {
  return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}
inline F32 LoadRegister(const float* p) { return vld1q_f32(p); }
inline F64 LoadRegister(const double* p) { return vld1q_f64(p); }
template <class T>
inline F32 LoadRegister(const T* p) {
  return Floats(p, vld1_u16(&p->bits));
}

template <class T>
constexpr bool kMaskedLoads = false;

inline F32 SetRegister(float a) { return vdupq_n_f32(a); }
inline F64 SetRegister(double a) { return vdupq_n_f64(a); }
template <int G, class T>
inline F32 SetRegisterGroup(const T* p) {
  static_assert(G == 2);
  const T groups[4] = {p[0], p[1], p[0], p[1]};
  return LoadRegister(groups);
}

inline F32 Fma(F32 a, F32 b, F32 c) { return vfmaq_f32(c, a, b); }
inline F64 Fma(F64 a, F64 b, F64 c) { return vfmaq_f64(c, a, b); }

inline F64 Low(F32 a) { return vcvt_f64_f32(vget_low_f32(a)); }
inline F64 High(F32 a) { return vcvt_high_f64_f32(a); }

inline void Unzip(F32 a, F32 b, F32& even, F32& odd) {
  even = vuzp1q_f32(a, b);
  odd = vuzp2q_f32(a, b);
}
inline void Unzip(F64 a, F64 b, F64& even, F64& odd) {
  even = vuzp1q_f64(a, b);
  odd = vuzp2q_f64(a, b);
}

inline F32 AddPairs(F32 a, F32 b) { return vpaddq_f32(a, b); }
inline F64 AddPairs(F64 a, F64 b) { return vpaddq_f64(a, b); }

[[gnu::always_inline]] inline void Transpose(F64 (&v)[2]) {
  const F64 first = vzip1q_f64(v[0], v[1]);
  v[1] = vzip2q_f64(v[0], v[1]);
  v[0] = first;
}

// Lane i is lane i / P.
template <int P>
inline F32 SpreadLanes(F32 v) {
  static_assert(P == 2);
  return vzip1q_f32(v, v);
}

template <class T, int D>
constexpr bool kTransposes = false;
template <class T>
constexpr int kBlock = 0;
inline void Split(const Half* type, F32 pairs, F32& first, F32& second) {
  const uint32x4_t v = vreinterpretq_u32_f32(pairs);
  first = Floats(type, vmovn_u32(v));
  second = Floats(type, vshrn_n_u32(v, 16));
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
