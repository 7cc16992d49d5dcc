// Stands in for csrc/kernels/cuda/async_copy.cuh: copies happen when they are awaited, not before.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace linreg_ops {
namespace cuda {

inline void CopyAsync16(void* shared, const void* global) {
  const cuda_emulation::PendingCopy copy{shared, global, 16};
  cuda_emulation::CheckCopy(copy);
  cuda_emulation::machine().fiber->open_group.push_back(copy);
}

inline void CommitCopies() {
  auto* fiber = cuda_emulation::machine().fiber;
  fiber->groups.push_back(std::move(fiber->open_group));
  fiber->open_group.clear();
}

inline void AwaitCopies(int younger) {
  auto& groups = cuda_emulation::machine().fiber->groups;
  while (groups.size() > static_cast<std::size_t>(younger < 7 ? younger : 7)) {
    cuda_emulation::Perform(groups.front());
    groups.erase(groups.begin());
  }
}

inline void InitBarrier(std::uint64_t* barrier) {
  cuda_emulation::machine().block->bulk[barrier] = {};
}
inline void PublishBarriers() {}
inline void FenceForBulkCopies() {}

inline void ArriveExpecting(std::uint64_t* barrier, std::uint32_t bytes) {
  auto& state = cuda_emulation::machine().block->bulk.at(barrier);
  if (state.expected >= 0) cuda_emulation::Fail("a barrier was armed twice");
  state.expected = bytes;
}

inline void CopyBulk(void* shared, const void* global, std::uint32_t bytes,
                     std::uint64_t* barrier) {
  const cuda_emulation::PendingCopy copy{shared, global, bytes};
  cuda_emulation::CheckCopy(copy);
  cuda_emulation::machine().block->bulk.at(barrier).copies.push_back(copy);
}

inline void AwaitBarrier(std::uint64_t* barrier, std::uint32_t parity) {
  auto& state = cuda_emulation::machine().block->bulk.at(barrier);
  while ((state.completed & 1) == parity) {
    std::int64_t bytes = 0;
    for (const auto& copy : state.copies) bytes += static_cast<std::int64_t>(copy.bytes);
    if (bytes > state.expected && state.expected >= 0) {
      cuda_emulation::Fail("more bytes copied than announced");
    }
    if (bytes == state.expected) {
      cuda_emulation::Perform(state.copies);
      state.expected = -1;
      ++state.completed;
    } else {
      __nanosleep(1);
    }
  }
}

}  // namespace cuda
}  // namespace linreg_ops
