// Products by tensor cores that the PTX runner has to get right: of small integers, exactly. One
// warp brings both factors to shared memory, takes them from there as the tensor cores want them,
// and multiplies.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "machine.h"
#include "report.h"

namespace {

constexpr int kRows = 16, kTargets = 8;

__device__ std::uint32_t SharedAddress(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// D = A B; A is [16, 16], or its transpose is there; B is [16, 8].
template <typename T, bool kTransposed>
__global__ void Halves(const T* a, const T* b, float* d) {
  extern __shared__ __align__(16) unsigned char shared[];
  T* sa = reinterpret_cast<T*>(shared);
  T* sb = sa + kRows * 16;
  const int lane = threadIdx.x;
  for (int i = lane; i < kRows * 16 / 2; i += 32) {
    reinterpret_cast<std::uint32_t*>(sa)[i] = reinterpret_cast<const std::uint32_t*>(a)[i];
  }
  for (int i = lane; i < 16 * kTargets / 2; i += 32) {
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
  if constexpr (std::is_same<T, __half>::value) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(w[0]), "r"(w[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(w[0]), "r"(w[1]));
  }
  for (int e = 0; e < 4; ++e) {
    d[(lane / 4 + e / 2 * 8) * kTargets + lane % 4 * 2 + e % 2] = c[e] - static_cast<float>(e + 1);
  }
}

// D = A B; A is [16, 8], B is [8, 8].
__global__ void Tf32(const float* a, const float* b, float* d) {
  const int lane = threadIdx.x, own = lane / 4, quarter = lane % 4;
  const auto bits = [](float v) { return __float_as_uint(v); };
  float c[4] = {};
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(bits(a[own * 8 + quarter])), "r"(bits(a[(own + 8) * 8 + quarter])),
        "r"(bits(a[own * 8 + quarter + 4])), "r"(bits(a[(own + 8) * 8 + quarter + 4])),
        "r"(bits(b[quarter * 8 + own])), "r"(bits(b[(quarter + 4) * 8 + own])));
  for (int e = 0; e < 4; ++e) d[(own + e / 2 * 8) * 8 + quarter * 2 + e % 2] = c[e];
}

// 16 bytes of which the last ones are not there: zeros.
__global__ void ShortCopy(const unsigned char* from, unsigned char* to) {
  extern __shared__ __align__(16) unsigned char shared[];
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   SharedAddress(shared + threadIdx.x * 16)),
               "l"(from), "r"(static_cast<int>(threadIdx.x % 17))
               : "memory");
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
  for (int i = 0; i < 16; ++i) to[threadIdx.x * 16 + i] = shared[threadIdx.x * 16 + i];
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

template <typename T>
void Check(const char* name, void (*kernel)(const T*, const T*, float*), int depth,
           bool transposed) {
  T *a = Take<T>(kRows * depth), *b = Take<T>(depth * kTargets);
  auto* d = Take<float>(kRows * kTargets);
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < depth; ++i) {
      a[transposed ? i * kRows + row : row * depth + i] =
          static_cast<T>(static_cast<float>(At(row, i)));
    }
  }
  for (int i = 0; i < depth; ++i) {
    for (int n = 0; n < kTargets; ++n) {
      b[i * kTargets + n] = static_cast<T>(static_cast<float>(At(i + 3, n)));
    }
  }
  Launch<const T*, const T*, float*>(kernel, a, b, d);
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < kTargets; ++n) {
      int want = 0;
      for (int i = 0; i < depth; ++i) want += At(row, i) * At(i + 3, n);
      const float got = d[row * kTargets + n];
      if (got == static_cast<float>(want)) continue;
      if (wrong++ < 10) std::printf("%s: [%d, %d] is %g, not %d\n", name, row, n, got, want);
    }
  }
}

void CheckShortCopies() {
  constexpr int kLanes = 32;
  auto* from = Take<unsigned char>(16);
  auto* to = Take<unsigned char>(kLanes * 16);
  for (int i = 0; i < 16; ++i) from[i] = static_cast<unsigned char>(i + 1);
  Launch<const unsigned char*, unsigned char*>(ShortCopy, from, to);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 16; ++i) {
      const int want = i < lane % 17 ? i + 1 : 0;
      if (to[lane * 16 + i] != want && wrong++ < 10) {
        std::printf("copy of %d bytes: byte %d is %d\n", lane % 17, i, to[lane * 16 + i]);
      }
    }
  }
}

}  // namespace

int main(int, char** arguments) {
  ptx_runner::machine().ptx_folder = arguments[1];
  Check<__half>("float16", Halves<__half, false>, 16, false);
  Check<__half>("float16, transposed", Halves<__half, true>, 16, true);
  Check<__nv_bfloat16>("bfloat16", Halves<__nv_bfloat16, false>, 16, false);
  Check<__nv_bfloat16>("bfloat16, transposed", Halves<__nv_bfloat16, true>, 16, true);
  Check<float>("tf32", Tf32, 8, false);
  CheckShortCopies();
  for (const auto& fault : ptx_runner::faults().first) std::printf("%s\n", fault.c_str());
  return wrong > 0 || ptx_runner::faults().count > 0;
}
