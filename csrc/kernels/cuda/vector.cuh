// Some adjacent elements of X as they came from memory, in 32-bit words: the registers
// of a load.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.cuh"

namespace linreg_ops {
namespace cuda {

// A word's element number i, and a word with that element replaced.
template <typename T>
__device__ inline float ElementOf(std::uint32_t word, int i);
template <>
__device__ inline float ElementOf<float>(std::uint32_t word, int) {
  return __uint_as_float(word);
}
template <>
__device__ inline float ElementOf<__half>(std::uint32_t word, int i) {
  const auto bits = static_cast<unsigned short>(i == 0 ? word & 0xffff : word >> 16);
  return __half2float(__ushort_as_half(bits));
}
template <>
__device__ inline float ElementOf<__nv_bfloat16>(std::uint32_t word, int i) {
  return __uint_as_float(i == 0 ? word << 16 : word & 0xffff0000);
}

// E elements, E · sizeof(T) = 4, 8 or 16 bytes.
template <typename T, int E>
struct Vector {
  using A = AccumulatorOf<T>;
  static constexpr int kWords = E * sizeof(T) / 4;
  std::uint32_t word[kWords];

  __device__ A operator[](int i) const {
    if constexpr (sizeof(T) == 8) {
      return __hiloint2double(static_cast<int>(word[2 * i + 1]), static_cast<int>(word[2 * i]));
    } else if constexpr (sizeof(T) == 4) {
      return ElementOf<T>(word[i], 0);
    } else {
      return ElementOf<T>(word[i / 2], i % 2);
    }
  }

  // The element's bits, the lowest first where it takes two words.
  __device__ void Set(int i, std::uint32_t low, std::uint32_t high = 0) {
    if constexpr (sizeof(T) == 8) {
      word[2 * i] = low;
      word[2 * i + 1] = high;
    } else if constexpr (sizeof(T) == 4) {
      word[i] = low;
    } else {
      word[i / 2] =
          i % 2 == 0 ? (word[i / 2] & 0xffff0000) | low : (word[i / 2] & 0xffff) | low << 16;
    }
  }

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = 0;
  }

  // One load.
  __device__ void Load(const T* from) {
    static_assert(kWords == 4, "16 bytes");
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "l"(from));
  }

  // One load, if `wanted`; else it stays as it is. As assembly, because the compiler makes a branch
  // of each, behind which it waits for the load.
  __device__ void Load(const T* from, bool wanted) {
    const int p = wanted;
    if constexpr (kWords == 4) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.s32 p, %5, 0;\n@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
          : "+r"(word[0]), "+r"(word[1]), "+r"(word[2]), "+r"(word[3])
          : "l"(from), "r"(p));
    } else if constexpr (kWords == 2) {
      asm volatile("{\n.reg .pred p;\nsetp.ne.s32 p, %3, 0;\n@p ld.global.v2.u32 {%0, %1}, [%2];\n}"
                   : "+r"(word[0]), "+r"(word[1])
                   : "l"(from), "r"(p));
    } else {
      asm volatile("{\n.reg .pred p;\nsetp.ne.s32 p, %2, 0;\n@p ld.global.u32 %0, [%1];\n}"
                   : "+r"(word[0])
                   : "l"(from), "r"(p));
    }
  }

  // From shared + Offset.
  template <int Offset>
  __device__ void LoadShared(std::uint32_t shared) {
    if constexpr (kWords == 4) {
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4 + %5];"
                   : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                   : "r"(shared), "n"(Offset)
                   : "memory");
    } else if constexpr (kWords == 2) {
      asm volatile("ld.shared.v2.u32 {%0, %1}, [%2 + %3];"
                   : "=r"(word[0]), "=r"(word[1])
                   : "r"(shared), "n"(Offset)
                   : "memory");
    } else {
      asm volatile("ld.shared.u32 %0, [%1 + %2];"
                   : "=r"(word[0])
                   : "r"(shared), "n"(Offset)
                   : "memory");
    }
  }

  __device__ void StoreShared(std::uint32_t shared) const {
    if constexpr (kWords == 4) {
      asm volatile("st.shared.v4.u32 [%4], {%0, %1, %2, %3};" ::"r"(word[0]), "r"(word[1]),
                   "r"(word[2]), "r"(word[3]), "r"(shared)
                   : "memory");
    } else if constexpr (kWords == 2) {
      asm volatile("st.shared.v2.u32 [%2], {%0, %1};" ::"r"(word[0]), "r"(word[1]), "r"(shared)
                   : "memory");
    } else {
      asm volatile("st.shared.u32 [%1], %0;" ::"r"(word[0]), "r"(shared) : "memory");
    }
  }

  // Elements [first, last) from an address that is aligned to its elements only; zeros elsewhere.
  __device__ void LoadEach(const T* from, int first, int last) {
#pragma unroll
    for (int i = 0; i < E; ++i) {
      if (i < first || i >= last) {
        Set(i, 0);
      } else if constexpr (sizeof(T) == 8) {
        const double value = __ldg(from + i);
        Set(i, static_cast<std::uint32_t>(__double2loint(value)),
            static_cast<std::uint32_t>(__double2hiint(value)));
      } else if constexpr (sizeof(T) == 4) {
        Set(i, __float_as_uint(__ldg(from + i)));
      } else {
        Set(i, __ldg(reinterpret_cast<const unsigned short*>(from + i)));
      }
    }
  }
};

}  // namespace cuda
}  // namespace linreg_ops
