// Subnormals as IEEE has them, for the lifetime of the object. Some of TensorFlow's threads flush
// them to zero and some do not; the result's bits must not depend on which thread a task meets.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <cstdint>

namespace linreg_ops {
namespace cpu {

class IeeeFloats {
 public:
#if defined(__x86_64__)
  IeeeFloats() : saved_(_mm_getcsr()) {
    if ((saved_ & kFlush) != 0) _mm_setcsr(saved_ & ~kFlush);
  }
  ~IeeeFloats() {
    if ((saved_ & kFlush) != 0) _mm_setcsr(saved_);
  }
#elif defined(__aarch64__)
  IeeeFloats() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    if ((saved_ & kFlush) != 0) Set(saved_ & ~kFlush);
  }
  ~IeeeFloats() {
    if ((saved_ & kFlush) != 0) Set(saved_);
  }
#endif
  IeeeFloats(const IeeeFloats&) = delete;
  IeeeFloats& operator=(const IeeeFloats&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr unsigned kFlush = 0x8040;  // FTZ and DAZ
  unsigned saved_;
#elif defined(__aarch64__)
  static constexpr std::uint64_t kFlush = std::uint64_t{1} << 24;  // FZ
  static void Set(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
  std::uint64_t saved_;
#endif
};

}  // namespace cpu
}  // namespace linreg_ops
