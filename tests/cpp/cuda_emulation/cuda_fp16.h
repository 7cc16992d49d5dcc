// Stands in for CUDA's header: see README.md.
#pragma once

struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return static_cast<float>(h.value); }
inline __half __double2half(double v) { return {static_cast<_Float16>(v)}; }
