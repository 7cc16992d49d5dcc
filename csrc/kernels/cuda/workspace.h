// Divides a workspace into aligned parts, or only adds up their sizes.
#pragma once

#include <cstdint>

namespace linreg_ops {
namespace cuda {

class WorkspaceParts {
 public:
  explicit WorkspaceParts(void* base) : base_(static_cast<char*>(base)) {}

  template <typename T = void>
  T* Take(std::int64_t bytes) {
    constexpr std::int64_t kAlignment = 256;
    char* part = base_ ? base_ + bytes_ : nullptr;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(part);
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  char* const base_;
  std::int64_t bytes_ = 0;
};

}  // namespace cuda
}  // namespace linreg_ops
