// The vector vocabulary over AArch64 NEON: a virtual vector is four registers. What each operation
// does is said in vec_avx512-inl.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/row_table-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

struct F32x16 {
  float32x4_t v[4];
};
struct F64x8 {
  float64x2_t v[4];
};

constexpr int kAccumulators = 6;

inline F32x16 Zero(F32x16) {
  const float32x4_t z = vdupq_n_f32(0);
  return {{z, z, z, z}};
}
inline F64x8 Zero(F64x8) {
  const float64x2_t z = vdupq_n_f64(0);
  return {{z, z, z, z}};
}
inline F32x16 Set(float a) {
  const float32x4_t s = vdupq_n_f32(a);
  return {{s, s, s, s}};
}
inline F64x8 Set(double a) {
  const float64x2_t s = vdupq_n_f64(a);
  return {{s, s, s, s}};
}

inline float32x4_t FourFrom(const float* p) { return vld1q_f32(p); }
inline float32x4_t FourFrom(const Half* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
}
inline float32x4_t FourFrom(const BFloat16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
}

inline F64x8 Load(const double* p) {
  return {{vld1q_f64(p), vld1q_f64(p + 2), vld1q_f64(p + 4), vld1q_f64(p + 6)}};
}
template <class T>
inline F32x16 Load(const T* p) {
  return {{FourFrom(p), FourFrom(p + 4), FourFrom(p + 8), FourFrom(p + 12)}};
}
template <class T>
inline auto LoadFirst(const T* p, int m) {
  alignas(16) T buffer[sizeof(T) == 8 ? 8 : 16] = {};
  for (int i = 0; i < m; ++i) buffer[i] = p[i];
  return Load(buffer);
}

template <int G, class T>
inline F32x16 SetGroup(const T* p) {
  T groups[8];
  for (int i = 0; i < 8; ++i) groups[i] = p[i % G];
  const float32x4_t a = FourFrom(groups), b = G == 8 ? FourFrom(groups + 4) : a;
  return {{a, b, a, b}};
}
template <int G>
inline F64x8 SetGroup(const double* p) {
  const float64x2_t a = G == 1 ? vdupq_n_f64(*p) : vld1q_f64(p);
  const float64x2_t b = G == 4 ? vld1q_f64(p + 2) : a;
  return {{a, b, a, b}};
}

inline uint32x4_t Below32(int m, int offset) {
  static const std::int32_t kLane[4] = {0, 1, 2, 3};
  return vcltq_s32(vld1q_s32(kLane), vdupq_n_s32(m - offset));
}
inline uint64x2_t Below64(int m, int offset) {
  static const std::int64_t kLane[2] = {0, 1};
  return vcltq_s64(vld1q_s64(kLane), vdupq_n_s64(m - offset));
}
inline F32x16 DropFirst(F32x16 a, int first) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a.v[i]);
    a.v[i] = vreinterpretq_f32_u32(vbicq_u32(bits, Below32(first, 4 * i)));
  }
  return a;
}
inline F64x8 DropFirst(F64x8 a, int first) {
  for (int i = 0; i < 4; ++i) {
    const uint64x2_t bits = vreinterpretq_u64_f64(a.v[i]);
    a.v[i] = vreinterpretq_f64_u64(vbicq_u64(bits, Below64(first, 2 * i)));
  }
  return a;
}
inline F32x16 KeepFirst(F32x16 a, int m) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a.v[i]);
    a.v[i] = vreinterpretq_f32_u32(vandq_u32(bits, Below32(m, 4 * i)));
  }
  return a;
}

inline F64x8 LoadF64(const double* p) { return Load(p); }
template <class T>
inline F64x8 LoadF64(const T* p) {
  const float32x4_t a = FourFrom(p), b = FourFrom(p + 4);
  return {{vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a), vcvt_f64_f32(vget_low_f32(b)),
           vcvt_high_f64_f32(b)}};
}

inline void Store(float* p, F32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline void Store(double* p, F64x8 a) {
  for (int i = 0; i < 4; ++i) vst1q_f64(p + 2 * i, a.v[i]);
}
inline void StoreF64(double* p, F64x8 a) { Store(p, a); }
inline void StoreF64(float* p, F64x8 a) {
  vst1q_f32(p, vcvt_high_f32_f64(vcvt_f32_f64(a.v[0]), a.v[1]));
  vst1q_f32(p + 4, vcvt_high_f32_f64(vcvt_f32_f64(a.v[2]), a.v[3]));
}

inline F32x16 Add(F32x16 a, F32x16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vaddq_f32(a.v[i], b.v[i]);
  return a;
}
inline F64x8 Add(F64x8 a, F64x8 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vaddq_f64(a.v[i], b.v[i]);
  return a;
}
inline F32x16 Sub(F32x16 a, F32x16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vsubq_f32(a.v[i], b.v[i]);
  return a;
}
inline F64x8 Sub(F64x8 a, F64x8 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vsubq_f64(a.v[i], b.v[i]);
  return a;
}
inline F32x16 Mul(F32x16 a, F32x16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vmulq_f32(a.v[i], b.v[i]);
  return a;
}
inline F64x8 Mul(F64x8 a, F64x8 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vmulq_f64(a.v[i], b.v[i]);
  return a;
}
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  for (int i = 0; i < 4; ++i) c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}
inline F64x8 Fma(F64x8 a, F64x8 b, F64x8 c) {
  for (int i = 0; i < 4; ++i) c.v[i] = vfmaq_f64(c.v[i], a.v[i], b.v[i]);
  return c;
}

inline F64x8 Low(F32x16 a) {
  return {{vcvt_f64_f32(vget_low_f32(a.v[0])), vcvt_high_f64_f32(a.v[0]),
           vcvt_f64_f32(vget_low_f32(a.v[1])), vcvt_high_f64_f32(a.v[1])}};
}
inline F64x8 High(F32x16 a) {
  return {{vcvt_f64_f32(vget_low_f32(a.v[2])), vcvt_high_f64_f32(a.v[2]),
           vcvt_f64_f32(vget_low_f32(a.v[3])), vcvt_high_f64_f32(a.v[3])}};
}
inline F32x16 And(F32x16 a, F32x16 b) {
  for (int i = 0; i < 4; ++i) {
    a.v[i] = vreinterpretq_f32_u32(
        vandq_u32(vreinterpretq_u32_f32(a.v[i]), vreinterpretq_u32_f32(b.v[i])));
  }
  return a;
}
inline F64x8 And(F64x8 a, F64x8 b) {
  for (int i = 0; i < 4; ++i) {
    a.v[i] = vreinterpretq_f64_u64(
        vandq_u64(vreinterpretq_u64_f64(a.v[i]), vreinterpretq_u64_f64(b.v[i])));
  }
  return a;
}
inline F64x8 KeepFirst(F64x8 a, int m) {
  for (int i = 0; i < 4; ++i) {
    const uint64x2_t bits = vreinterpretq_u64_f64(a.v[i]);
    a.v[i] = vreinterpretq_f64_u64(vandq_u64(bits, Below64(m, 2 * i)));
  }
  return a;
}

inline void Unzip(F32x16 a, F32x16 b, F32x16& even, F32x16& odd) {
  F32x16 e, o;
  for (int i = 0; i < 2; ++i) {
    e.v[i] = vuzp1q_f32(a.v[2 * i], a.v[2 * i + 1]);
    o.v[i] = vuzp2q_f32(a.v[2 * i], a.v[2 * i + 1]);
    e.v[i + 2] = vuzp1q_f32(b.v[2 * i], b.v[2 * i + 1]);
    o.v[i + 2] = vuzp2q_f32(b.v[2 * i], b.v[2 * i + 1]);
  }
  even = e;
  odd = o;
}
inline void Unzip(F64x8 a, F64x8 b, F64x8& even, F64x8& odd) {
  F64x8 e, o;
  for (int i = 0; i < 2; ++i) {
    e.v[i] = vuzp1q_f64(a.v[2 * i], a.v[2 * i + 1]);
    o.v[i] = vuzp2q_f64(a.v[2 * i], a.v[2 * i + 1]);
    e.v[i + 2] = vuzp1q_f64(b.v[2 * i], b.v[2 * i + 1]);
    o.v[i + 2] = vuzp2q_f64(b.v[2 * i], b.v[2 * i + 1]);
  }
  even = e;
  odd = o;
}

inline void Split(const Half*, F32x16 pairs, F32x16& first, F32x16& second) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t v = vreinterpretq_u32_f32(pairs.v[i]);
    first.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(v)));
    second.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(v, 16)));
  }
}
inline void Split(const BFloat16*, F32x16 pairs, F32x16& first, F32x16& second) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t v = vreinterpretq_u32_f32(pairs.v[i]);
    first.v[i] = vreinterpretq_f32_u32(vshlq_n_u32(v, 16));
    second.v[i] = vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff0000u)));
  }
}

// A register takes 4 (or 2) columns of one row; none where there is no such column.
template <int D, int P, class T>
inline F32x16 LoadRows(const T* p) {
  if constexpr (P < 4) return Load(p);
  F32x16 r = Zero(F32x16{});
  for (int i = 0; i < 4; ++i) {
    const int lane = 4 * i;
    if (lane % P < D) r.v[i] = FourFrom(p + lane / P * D + lane % P);
  }
  return r;
}
template <int D, int P>
inline F64x8 LoadRows(const double* p) {
  F64x8 r = Zero(F64x8{});
  for (int i = 0; i < 4; ++i) {
    const int lane = 2 * i;
    if (P < 2 || lane % P < D) r.v[i] = vld1q_f64(p + lane / P * D + lane % P);
  }
  return r;
}

[[gnu::always_inline]] inline void Transpose(F64x8 (&v)[8]) {
  F64x8 to[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      to[2 * i].v[j] = vzip1q_f64(v[2 * j].v[i], v[2 * j + 1].v[i]);
      to[2 * i + 1].v[j] = vzip2q_f64(v[2 * j].v[i], v[2 * j + 1].v[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = to[i];
}

[[gnu::always_inline]] inline void Prefetch(const void* p) { __builtin_prefetch(p); }
// Non-temporal: does not displace what L2 holds.
[[gnu::always_inline]] inline void PrefetchOnce(const void* p) { __builtin_prefetch(p, 0, 0); }

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
