// The element types, and the pairs of them that have kernels: the one list that checks, tables of
// kernels, TensorFlow's registrations, bindings and Python's tests read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace linreg_ops {

enum class DType : std::uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

struct DTypeInfo {
  DType type;
  const char* name;  // NumPy's, TensorFlow's and JAX's
  std::size_t size;
};
constexpr DTypeInfo kDTypes[] = {{DType::kFloat32, "float32", 4},
                                 {DType::kFloat64, "float64", 8},
                                 {DType::kFloat16, "float16", 2},
                                 {DType::kBFloat16, "bfloat16", 2}};

// The types of x, and of w, y, sample_weight and every output: the same, or float32 beside 16 bits.
struct DTypePair {
  DType x;
  DType w;
};
constexpr DTypePair kDTypePairs[] = {
    {DType::kFloat32, DType::kFloat32},   {DType::kFloat64, DType::kFloat64},
    {DType::kFloat16, DType::kFloat16},   {DType::kFloat16, DType::kFloat32},
    {DType::kBFloat16, DType::kBFloat16}, {DType::kBFloat16, DType::kFloat32}};
constexpr int kNumDTypePairs = sizeof(kDTypePairs) / sizeof(kDTypePairs[0]);

std::size_t SizeOf(DType type);  // 0 for a value that is none of them
const char* NameOf(DType type);  // "unknown" for such a one

}  // namespace linreg_ops
