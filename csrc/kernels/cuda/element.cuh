// Elements of the four types in memory, and their accumulators in registers: float32, but float64
// for float64.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

template <typename T>
struct Element;

template <>
struct Element<float> {
  using Accumulator = float;
  static constexpr DType kType = DType::kFloat32;
  __device__ static float Load(float v) { return v; }
};
template <>
struct Element<double> {
  using Accumulator = double;
  static constexpr DType kType = DType::kFloat64;
  __device__ static double Load(double v) { return v; }
};
template <>
struct Element<__half> {
  using Accumulator = float;
  static constexpr DType kType = DType::kFloat16;
  __device__ static float Load(__half v) { return __half2float(v); }
};
template <>
struct Element<__nv_bfloat16> {
  using Accumulator = float;
  static constexpr DType kType = DType::kBFloat16;
  __device__ static float Load(__nv_bfloat16 v) { return __bfloat162float(v); }
};

template <typename T>
using AccumulatorOf = typename Element<T>::Accumulator;

// V adjacent elements in one load; the address is a multiple of their size.
template <int V, typename T>
__device__ inline void LoadVector(const T* from, AccumulatorOf<T> (&to)[V]) {
  struct alignas(V * sizeof(T)) Vector {
    T element[V];
  };
  static_assert(sizeof(Vector) == 16 || sizeof(Vector) == 8, "one load instruction");
  const Vector vector = *reinterpret_cast<const Vector*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = Element<T>::Load(vector.element[i]);
}

// Element `index` of an array whose type is known at run time only: w, y and sample_weight, of
// which there are few beside X's elements, so that a branch costs less than a kernel for each type.
template <typename A>
__device__ inline A LoadAs(const void* array, std::int64_t index, DType type) {
  switch (type) {
    case DType::kFloat64:
      return static_cast<A>(static_cast<const double*>(array)[index]);
    case DType::kFloat16:
      return static_cast<A>(__half2float(static_cast<const __half*>(array)[index]));
    case DType::kBFloat16:
      return static_cast<A>(__bfloat162float(static_cast<const __nv_bfloat16*>(array)[index]));
    default:
      return static_cast<A>(static_cast<const float*>(array)[index]);
  }
}

__device__ inline int ElementBytes(DType type) {
  return type == DType::kFloat64 ? 8 : type == DType::kFloat32 ? 4 : 2;
}

// Rounds once: from float64 straight to the type.
__device__ inline void StoreAs(void* array, std::int64_t index, DType type, double value) {
  switch (type) {
    case DType::kFloat64:
      static_cast<double*>(array)[index] = value;
      return;
    case DType::kFloat16:
      static_cast<__half*>(array)[index] = __double2half(value);
      return;
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(array)[index] = __double2bfloat16(value);
      return;
    default:
      static_cast<float*>(array)[index] = static_cast<float>(value);
  }
}

}  // namespace cuda
}  // namespace linreg_ops
