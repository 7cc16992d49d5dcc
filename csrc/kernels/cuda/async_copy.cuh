// A thread's copies from global to shared memory that it waits for later: cp.async of sm_80. Older
// devices copy through a register at once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace linreg_ops {
namespace cuda {

__device__ inline std::uint32_t SharedAddress(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

// `Bytes` are 4, 8 or 16, and both addresses multiples of it; to shared + Offset, if `wanted`.
// Through L1, where the end of a row may be the beginning of the next.
template <int Bytes, int Offset, bool ByL1 = true>
__device__ inline void CopyAsync(std::uint32_t shared, const void* global, bool wanted) {
  const int p = wanted;
#if __CUDA_ARCH__ >= 800
  if constexpr (!ByL1) {
    static_assert(Bytes == 16, "past L1");
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.s32 p, %4, 0;\n"
        "@p cp.async.cg.shared.global [%0 + %1], [%2], %3;\n}" ::"r"(shared),
        "n"(Offset), "l"(global), "n"(Bytes), "r"(p)
        : "memory");
    return;
  }
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.s32 p, %4, 0;\n"
      "@p cp.async.ca.shared.global [%0 + %1], [%2], %3;\n}" ::"r"(shared),
      "n"(Offset), "l"(global), "n"(Bytes), "r"(p)
      : "memory");
#else
  if constexpr (Bytes == 16) {
    asm volatile(
        "{\n.reg .pred p;\n.reg .b32 a, b, c, d;\nsetp.ne.s32 p, %3, 0;\n"
        "@p ld.global.v4.u32 {a, b, c, d}, [%2];\n@p st.shared.v4.u32 [%0 + %1], {a, b, c, "
        "d};\n}" ::"r"(shared),
        "n"(Offset), "l"(global), "r"(p)
        : "memory");
  } else if constexpr (Bytes == 8) {
    asm volatile(
        "{\n.reg .pred p;\n.reg .b32 a, b;\nsetp.ne.s32 p, %3, 0;\n"
        "@p ld.global.v2.u32 {a, b}, [%2];\n@p st.shared.v2.u32 [%0 + %1], {a, b};\n}" ::"r"(
            shared),
        "n"(Offset), "l"(global), "r"(p)
        : "memory");
  } else {
    asm volatile(
        "{\n.reg .pred p;\n.reg .b32 a;\nsetp.ne.s32 p, %3, 0;\n"
        "@p ld.global.u32 a, [%2];\n@p st.shared.u32 [%0 + %1], a;\n}" ::"r"(shared),
        "n"(Offset), "l"(global), "r"(p)
        : "memory");
  }
#endif
}

// Closes the group of this thread's copies since the last group.
__device__ inline void CommitCopies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `Younger` of this thread's groups are unfinished.
template <int Younger>
__device__ inline void AwaitCopiesBut() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Younger) : "memory");
#endif
}

}  // namespace cuda
}  // namespace linreg_ops
