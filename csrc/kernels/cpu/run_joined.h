// cpu::Threads::run for any pool that can schedule a closure: TensorFlow's, XLA's, our own.
//
// The caller works too and never waits for a closure that has not started: a pool that is busy, or
// that was lost in a fork, costs time and cannot deadlock.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

namespace linreg_ops {
namespace cpu {

// `schedule(closure)` runs the nullary closure at some later time on another thread, or never.
template <typename Schedule>
void RunJoined(const Schedule& schedule, int workers, void (*body)(void* arg), void* arg) {
  // One word: the bodies running on the pool, and a bit that turns latecomers away.
  constexpr std::uint32_t kClosed = 1u << 31;
  const auto state = std::make_shared<std::atomic<std::uint32_t>>(0);
  for (int i = 1; i < workers; ++i) {
    schedule([state, body, arg] {
      const bool open = (state->fetch_add(1, std::memory_order_acq_rel) & kClosed) == 0;
      if (open) body(arg);
      state->fetch_sub(1, std::memory_order_acq_rel);
    });
  }
  body(arg);
  // The work is claimed by now, so what is left is the tail of a chunk: worth spinning for. Not
  // forever: the thread that has it may have lost its core to this one.
  state->fetch_or(kClosed, std::memory_order_acq_rel);
  for (int spins = 0; (state->load(std::memory_order_acquire) & ~kClosed) != 0; ++spins) {
    if (spins > 2000) {
      std::this_thread::yield();
    } else {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }
}

}  // namespace cpu
}  // namespace linreg_ops
