// float16 and bfloat16 from and to float, in integer arithmetic, rounding to nearest even. For
// single values and for CPUs without conversion instructions. Part of one instruction set's unit:
// see vec-inl.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

inline float FloatOfBits(std::uint32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, sizeof(f));
  return f;
}
inline std::uint32_t BitsOf(float f) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &f, sizeof(bits));
  return bits;
}

inline float FloatOf(BFloat16 a) { return FloatOfBits(std::uint32_t{a.bits} << 16); }

inline float FloatOf(Half a) {
  const std::uint32_t sign = (a.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = (a.bits & 0x7fffu) << 13;
  if (magnitude >= 0x7c00u << 13) {  // infinity, or a NaN made quiet as the instructions do
    const std::uint32_t quiet = (a.bits & 0x3ffu) != 0 ? 1u << 22 : 0;
    return FloatOfBits(sign | 0x7f800000u | magnitude | quiet);
  }
  if (magnitude < 1u << 23) {  // a multiple of 2^-24: no float subnormal, which may be flushed
    const float scaled = static_cast<float>(a.bits & 0x3ffu) * FloatOfBits((127u - 24u) << 23);
    return FloatOfBits(sign | BitsOf(scaled));
  }
  return FloatOfBits(sign | (magnitude + (112u << 23)));
}

// The indices of a shuffle of bytes, which puts zero where an index is negative: from G bfloat16
// values that fill 16 bytes over and over to floats, value i % G to the upper half of lane i.
template <int kBytes, int G>
struct UpperHalves {
  signed char byte[kBytes] = {};
  constexpr UpperHalves() {
    for (int i = 0; i < kBytes; ++i) byte[i] = i % 4 < 2 ? -128 : i / 4 % G * 2 + i % 4 - 2;
  }
};

inline void FromFloat(float f, BFloat16* out) {
  const std::uint32_t bits = BitsOf(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    out->bits = static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    return;
  }
  out->bits = static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void FromFloat(float f, Half* out) {
  const std::uint32_t bits = BitsOf(f);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65520 or more
    result = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: let the adder round at 2^-24
    result = BitsOf(FloatOfBits(magnitude) + 0.5f) - BitsOf(0.5f);
  } else {
    const std::uint32_t rebiased = magnitude - (112u << 23);
    result = (rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13;
  }
  out->bits = static_cast<std::uint16_t>(sign | result);
}

// `count` elements of the compute type, rounded to type T.
template <class T>
void Narrow(const void* from, void* to, std::int64_t count) {
  const Compute<T>* in = static_cast<const Compute<T>*>(from);
  T* out = static_cast<T*>(to);
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(T) == 2) {
      FromFloat(in[i], out + i);
    } else {
      out[i] = in[i];
    }
  }
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
