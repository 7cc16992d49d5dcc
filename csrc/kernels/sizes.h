// Products of sizes that come from outside: they do not overflow.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>

namespace linreg_ops {

// The largest number there is where the product is larger. The sizes are not negative.
inline std::int64_t SaturatingProduct(std::initializer_list<std::int64_t> sizes) {
  std::int64_t product = 1;
  bool overflow = false;
  for (const std::int64_t size : sizes) {
    if (size == 0) return 0;
    overflow |= __builtin_mul_overflow(product, size, &product);
  }
  return overflow ? std::numeric_limits<std::int64_t>::max() : product;
}

}  // namespace linreg_ops
