// Runs stages of tasks, one after the other, on threads that may come late or never.
//
// Bodies claim tasks from one atomic word; whoever finishes a stage's last task decides what comes
// next. There is no barrier to arrive at: a body that finds nothing to claim spins until the word
// changes, which takes as long as the tasks that running bodies hold, so the caller alone gets to
// the end and a late body joins wherever the others are. Nobody sleeps between stages.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace linreg_ops {
namespace cpu {

class Stages {
 public:
  // `run(self, task, worker)` runs one task of the stage at hand. `next(self)` is called by one
  // body when a stage is done, with all its effects visible, and returns the number of tasks of the
  // next stage, 0 to end.
  struct Work {
    void* self;
    void (*run)(void* self, int task, int worker);
    int (*next)(void* self);
  };

  Stages(const Work& work, int first_tasks) : work_(work), claims_(Pack(0, 0, first_tasks)) {}

  // A body for Threads::run.
  static void Body(void* self) { static_cast<Stages*>(self)->Participate(); }

 private:
  // Stage number, first unclaimed task, one past the last unclaimed task. Even workers claim from
  // the front and odd ones from the back, so that over many steps a worker keeps meeting the same
  // rows, in its own cache.
  static std::uint64_t Pack(std::uint64_t stage, std::uint64_t front, std::uint64_t back) {
    return stage << 32 | front << 16 | back;
  }
  static constexpr std::uint64_t kEnd = ~std::uint64_t{0};

  void Participate() {
    const int worker = workers_.fetch_add(1, std::memory_order_relaxed);
    std::uint64_t word = claims_.load(std::memory_order_acquire);
    while (word != kEnd) {
      const std::uint64_t front = word >> 16 & 0xffff, back = word & 0xffff;
      if (front == back) {
        word = AwaitChange(word);
        continue;
      }
      const bool from_back = worker % 2 != 0;
      const std::uint64_t claimed = from_back ? word - 1 : word + (1 << 16);
      if (!claims_.compare_exchange_weak(word, claimed, std::memory_order_acquire)) continue;
      work_.run(work_.self, static_cast<int>(from_back ? back - 1 : front), worker);
      Finish(word >> 32);
      word = claims_.load(std::memory_order_acquire);
    }
  }

  void Finish(std::uint64_t stage) {
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const int tasks = work_.next(work_.self);
    unfinished_.store(tasks, std::memory_order_relaxed);
    claims_.store(tasks == 0 ? kEnd : Pack((stage + 1) & 0x7fffffff, 0, tasks),
                  std::memory_order_release);
  }

  // A stage is usually over within microseconds. The thread that holds its last task may have lost
  // its core to this one, though: give it back after a while.
  std::uint64_t AwaitChange(std::uint64_t seen) const {
    for (int spins = 0;; ++spins) {
      const std::uint64_t word = claims_.load(std::memory_order_acquire);
      if (word != seen) return word;
      if (spins > 4000) {
        sched_yield();
      } else {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
      }
    }
  }

  const Work work_;
  alignas(64) std::atomic<std::uint64_t> claims_;
  alignas(64) std::atomic<std::int32_t> unfinished_{
      static_cast<std::int32_t>(claims_.load(std::memory_order_relaxed) & 0xffff)};
  std::atomic<std::int32_t> workers_{0};
};

}  // namespace cpu
}  // namespace linreg_ops
