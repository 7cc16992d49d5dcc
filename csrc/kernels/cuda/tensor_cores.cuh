// What tensor cores do: products of 16 rows and 16 columns by 8 targets, of bfloat16 numbers with
// float32 sums, and a warp's loads of their factors from shared memory. From sm_90 on, though the
// instructions are sm_80's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace linreg_ops {
namespace cuda {

// Four 8 x 8 matrices of 16-bit numbers, whose rows are at the addresses of eight lanes each.
__device__ inline void LoadMatrices(std::uint32_t at, std::uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
__device__ inline void LoadTransposed(std::uint32_t at, std::uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
__device__ inline void LoadTransposed(std::uint32_t at, std::uint32_t& r0, std::uint32_t& r1) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r0), "=r"(r1)
               : "r"(at)
               : "memory");
}

// c += a · b. The sum of the sixteen products and c is rounded towards zero.
__device__ inline void MultiplyAdd(float (&c)[4], const std::uint32_t (&a)[4],
                                   const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two numbers as the sums of P bfloat16 each, of which three hold all 24 bits of float32 from
// kLeastSplit to kMostSplit.
constexpr float kLeastSplit = 0x1p-110f, kMostSplit = 0x1.fep127f;
template <int P>
__device__ inline void Split(float a, float b, std::uint32_t (&piece)[P]) {
#pragma unroll
  for (int p = 0; p < P; ++p) {
    const __nv_bfloat162 rounded = __floats2bfloat162_rn(a, b);
    memcpy(&piece[p], &rounded, 4);
    if (p + 1 < P) {
      a -= __uint_as_float(piece[p] << 16);
      b -= __uint_as_float(piece[p] & 0xffff0000u);
    }
  }
}
__device__ inline bool IsSplit(float a) {
  return a == 0 || (fabsf(a) >= kLeastSplit && fabsf(a) <= kMostSplit);
}

// Residuals of 16 rows, three pieces of each, as both kinds of tile read them: a matrix of 16-bit
// numbers for each piece, whose rows are so far apart that eight of them meet no bank twice.
template <int N>
struct ResidualPieces {
  static constexpr int kPitch = N == 1 ? 16 : 48, kMatrix = 16 * kPitch;

  __device__ static void Store(unsigned char* to, int row, int target, float a, float b) {
    std::uint32_t piece[3];
    Split(a, b, piece);
#pragma unroll
    for (int p = 0; p < 3; ++p) {
      *reinterpret_cast<std::uint32_t*>(to + p * kMatrix + row * kPitch + target * 2) = piece[p];
    }
  }
  __device__ static void Load(int lane, const unsigned char* from, std::uint32_t (&b)[3][N][2]) {
    const std::uint32_t at = static_cast<std::uint32_t>(__cvta_generic_to_shared(from)) +
                             lane % 16 * kPitch + (N == 1 ? 0 : lane / 16 * 16);
#pragma unroll
    for (int p = 0; p < 3; ++p) {
      if constexpr (N == 1) {
        LoadTransposed(at + p * kMatrix, b[p][0][0], b[p][0][1]);
      } else {
        std::uint32_t v[4];
        LoadTransposed(at + p * kMatrix, v);
        b[p][0][0] = v[0], b[p][0][1] = v[1], b[p][1][0] = v[2], b[p][1][1] = v[3];
      }
    }
  }
};

}  // namespace cuda
}  // namespace linreg_ops
