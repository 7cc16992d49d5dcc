// Stands in for CUDA's header: see README.md.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 v) {
  const std::uint32_t bits = std::uint32_t{v.bits} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline __nv_bfloat16 __double2bfloat16(double v) {
  float f = static_cast<float>(v);
  if (f != f) return {0x7fff};
  std::uint32_t bits;
  std::memcpy(&bits, &f, 4);
  // To odd first, so that the second rounding cannot see a tie that was none.
  if (static_cast<double>(f) != v && std::isfinite(f) && !(bits & 1)) {
    bits += (std::fabs(static_cast<double>(f)) < std::fabs(v)) ? 1u : 0xffffffffu;
  }
  return {static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
