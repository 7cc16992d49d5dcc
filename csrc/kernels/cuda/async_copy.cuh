// Copies from global to shared memory that no thread waits for: cp.async (sm_80), whose completion
// a thread awaits for its own copies, and cp.async.bulk (sm_90), one thread's copy of any size
// whose bytes an mbarrier counts. Older devices copy through registers. The only inline assembly
// here.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace linreg_ops {
namespace cuda {

__device__ inline std::uint32_t SharedAddress(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes; both addresses are multiples of 16.
__device__ inline void CopyAsync16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  // .cg: through L2 only, since X is read once.
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
#else
  *static_cast<uint4*>(shared) = __ldg(static_cast<const uint4*>(global));
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

// The instruction takes a constant only. Waiting for more than was asked for is always right.
__device__ inline void AwaitCopies(int younger) {
  switch (younger) {
    case 0:
      return AwaitCopiesBut<0>();
    case 1:
      return AwaitCopiesBut<1>();
    case 2:
      return AwaitCopiesBut<2>();
    case 3:
      return AwaitCopiesBut<3>();
    case 4:
      return AwaitCopiesBut<4>();
    case 5:
      return AwaitCopiesBut<5>();
    case 6:
      return AwaitCopiesBut<6>();
    default:
      return AwaitCopiesBut<7>();
  }
}

// An mbarrier that one arrival and its announced bytes complete, phase after phase.
__device__ inline void InitBarrier(std::uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(SharedAddress(barrier)) : "memory");
#else
  (void)barrier;
  __trap();  // the host asks for bulk copies of code that has them only
#endif
}

// By the thread that initialised barriers, before the block's __syncthreads() that publishes them.
__device__ inline void PublishBarriers() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Orders this thread's ordinary accesses to shared memory before later bulk copies.
__device__ inline void FenceForBulkCopies() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ inline void ArriveExpecting(std::uint64_t* barrier, std::uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
#else
  (void)barrier;
  (void)bytes;
#endif
}

// `bytes` and both addresses are multiples of 16.
__device__ inline void CopyBulk(void* shared, const void* global, std::uint32_t bytes,
                                std::uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
#else
  (void)shared;
  (void)global;
  (void)bytes;
  (void)barrier;
#endif
}

// Returns when the barrier has completed its phase of this parity.
__device__ inline void AwaitBarrier(std::uint64_t* barrier, std::uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  std::uint32_t done = 0;
  while (!done) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  }
#else
  (void)barrier;
  (void)parity;
#endif
}

}  // namespace cuda
}  // namespace linreg_ops
