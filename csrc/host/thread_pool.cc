#include "host/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#include "host/worker_pool.h"

namespace linreg_ops {
namespace {

// Its threads sleep until the process ends.
class ThreadPool {
 public:
  cpu::WorkerPool workers{cpu::Owner::kOurs};

  void Grow(int count) {
    std::lock_guard<std::mutex> lock(mu_);
    for (; started_ < count; ++started_) {
      try {
        std::thread([this] { Work(); }).detach();
      } catch (const std::system_error&) {
        return;  // the machine has no more threads to give: callers finish with those there are
      }
    }
  }

  void Schedule(std::function<void()> closure) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      queue_.push_back(std::move(closure));
    }
    wake_.notify_one();
  }

 private:
  void Work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mu_);
      wake_.wait(lock, [this] { return !queue_.empty(); });
      std::function<void()> closure = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      closure();
    }
  }

  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  int started_ = 0;
};

}  // namespace

int AvailableProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

cpu::Threads PoolThreads(int count) {
  cpu::Threads threads;
  threads.count = std::max(1, count);
  threads.run = [](void*, int workers, void (*body)(void*), void* arg) {
    ThreadPool& pool = cpu::OneOfProcess<ThreadPool>();
    pool.Grow(workers - 1);
    pool.workers.Run([&pool](auto closure) { pool.Schedule(std::move(closure)); }, workers, body,
                     arg);
  };
  return threads;
}

}  // namespace linreg_ops
