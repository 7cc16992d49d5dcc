// Products by tensor cores that the PTX runner has to get right: of small integers, exactly. One
// warp brings both factors to shared memory, takes them from there as the tensor cores want them,
// and multiplies.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

#include "machine.h"
#include "report.h"

namespace {

constexpr int kRows = 16, kDepth = 16, kTargets = 8;

__device__ std::uint32_t SharedAddress(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// D = A B; A is [16, 16], or its transpose is there; B is [16, 8].
template <bool kTransposed>
__global__ void Product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const sa = reinterpret_cast<__nv_bfloat16*>(shared);
  auto* const sb = sa + kRows * kDepth;
  const int lane = threadIdx.x;
  for (int i = lane; i < kRows * kDepth / 2; i += 32) {
    reinterpret_cast<std::uint32_t*>(sa)[i] = reinterpret_cast<const std::uint32_t*>(a)[i];
  }
  for (int i = lane; i < kDepth * kTargets / 2; i += 32) {
    reinterpret_cast<std::uint32_t*>(sb)[i] = reinterpret_cast<const std::uint32_t*>(b)[i];
  }
  __syncwarp();
  std::uint32_t r[4], w[2];
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(SharedAddress(sa + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8)));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(SharedAddress(sa + lane % 16 * 16 + lane / 16 * 8)));
  }
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(w[0]), "=r"(w[1])
               : "r"(SharedAddress(sb + lane % 16 * kTargets)));
  float c[4] = {1, 2, 3, 4};
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(w[0]), "r"(w[1]));
  for (int e = 0; e < 4; ++e) {
    d[(lane / 4 + e / 2 * 8) * kTargets + lane % 4 * 2 + e % 2] = c[e] - static_cast<float>(e + 1);
  }
}

template <typename T>
T* Take(int count) {
  void* p = nullptr;
  if (cudaMallocAsync(&p, count * sizeof(T), nullptr) != cudaSuccess) ptx_runner::Fail("no memory");
  return static_cast<T*>(p);
}

template <typename... A>
void Launch(void (*kernel)(A...), A... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = config.blockDim = dim3(1);
  config.blockDim.x = 32;
  config.dynamicSmemBytes = 1024;
  void* pointers[] = {&arguments...};
  const auto* stub = reinterpret_cast<const void*>(kernel);
  if (cudaLaunchKernelExC(&config, stub, pointers) != cudaSuccess) ptx_runner::Fail("no launch");
}

int wrong = 0;

// Small integers, no two rows or columns alike.
int At(int row, int column) { return (row * 7 + column * 5 + row * column) % 13 - 6; }

template <bool kTransposed>
void Check(const char* name) {
  using T = __nv_bfloat16;
  T *a = Take<T>(kRows * kDepth), *b = Take<T>(kDepth * kTargets);
  auto* d = Take<float>(kRows * kTargets);
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kDepth; ++i) {
      a[kTransposed ? i * kRows + row : row * kDepth + i] =
          static_cast<T>(static_cast<float>(At(row, i)));
    }
  }
  for (int i = 0; i < kDepth; ++i) {
    for (int n = 0; n < kTargets; ++n) {
      b[i * kTargets + n] = static_cast<T>(static_cast<float>(At(i + 3, n)));
    }
  }
  Launch<const T*, const T*, float*>(Product<kTransposed>, a, b, d);
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < kTargets; ++n) {
      int want = 0;
      for (int i = 0; i < kDepth; ++i) want += At(row, i) * At(i + 3, n);
      const float got = d[row * kTargets + n];
      if (got == static_cast<float>(want)) continue;
      if (wrong++ < 10) std::printf("%s: [%d, %d] is %g, not %d\n", name, row, n, got, want);
    }
  }
}

}  // namespace

int main(int, char** arguments) {
  ptx_runner::machine().ptx_folder = arguments[1];
  Check<false>("as it is");
  Check<true>("transposed");
  for (const auto& fault : ptx_runner::faults().first) std::printf("%s\n", fault.c_str());
  return wrong > 0 || ptx_runner::faults().count > 0;
}
