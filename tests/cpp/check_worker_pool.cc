// A worker pool's promises, whatever a pool does with closures: Run returns only when no body runs,
// with at most `workers` of them begun, and never waits for one that nobody has begun.
#include <atomic>
#include <cstdio>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "host/worker_pool.h"

namespace {

using linreg_ops::cpu::Owner;
using linreg_ops::cpu::WorkerPool;
using Closure = std::function<void()>;

// A pool: runs what `keeps` lets through, on threads of its own.
class Pool {
 public:
  explicit Pool(bool (*keeps)(int number)) : keeps_(keeps) {}
  ~Pool() {
    for (std::thread& thread : threads_) thread.join();
  }
  void Schedule(Closure closure) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (keeps_(scheduled_++)) threads_.emplace_back(std::move(closure));
  }
  int scheduled() {
    const std::lock_guard<std::mutex> lock(mu_);
    return scheduled_;
  }

 private:
  bool (*const keeps_)(int number);
  std::mutex mu_;
  std::vector<std::thread> threads_;
  int scheduled_ = 0;
};

// Tasks that bodies claim, as the kernels do.
struct Work {
  std::atomic<int> unclaimed{50}, done{0}, begun{0}, inside{0};

  static void Body(void* self) {
    Work& work = *static_cast<Work*>(self);
    ++work.begun;
    ++work.inside;
    while (work.unclaimed.fetch_sub(1) > 0) ++work.done;
    --work.inside;
  }

  bool Ended(int workers) const {
    return done == 50 && inside == 0 && begun >= 1 && begun <= workers;
  }
};

int CheckCallers(const char* what, bool (*keeps)(int number)) {
  std::atomic<int> failures{0};
  WorkerPool workers(Owner::kOurs);
  Pool pool(keeps);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 200; ++i) {
        const int count = 1 + (caller + i) % 5;
        Work work;
        workers.Run([&](Closure closure) { pool.Schedule(std::move(closure)); }, count, Work::Body,
                    &work);
        if (!work.Ended(count)) ++failures;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  if (failures > 0)
    std::printf("worker pool: %d wrong runs with a pool that %s\n", failures.load(), what);
  return failures;
}

// A closure that begins when its call is over finds nothing, and nobody waits for it.
int CheckLate() {
  WorkerPool workers(Owner::kOurs);
  std::vector<Closure> late;
  Work work;
  workers.Run([&](Closure closure) { late.push_back(std::move(closure)); }, 3, Work::Body, &work);
  const int begun = work.begun;
  for (const Closure& closure : late) closure();
  if (late.size() == 2 && begun == 1 && work.begun == 1 && work.Ended(3)) return 0;
  std::printf("worker pool: %zu closures, %d bodies, %d with the late ones\n", late.size(), begun,
              work.begun.load());
  return 1;
}

// A pool that throws fails its call, and no other.
int CheckThrows() {
  WorkerPool workers(Owner::kOurs);
  Work work;
  bool thrown = false;
  try {
    workers.Run([](const Closure&) { throw std::bad_alloc(); }, 2, Work::Body, &work);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  Pool pool([](int) { return true; });
  Work next;
  workers.Run([&](Closure closure) { pool.Schedule(std::move(closure)); }, 2, Work::Body, &next);
  if (thrown && work.begun == 0 && next.Ended(2) && pool.scheduled() == 1) return 0;
  std::printf("worker pool: a pool that throws leaves something behind\n");
  return 1;
}

// A thread stays for the next call, which then schedules nobody. Not always: others may have had
// the processor for longer than it stays.
int CheckStays() {
  for (int attempt = 0; attempt < 50; ++attempt) {
    WorkerPool workers(Owner::kOurs);
    Pool pool([](int) { return true; });
    for (int i = 0; i < 20; ++i) {
      std::atomic<int> begun{0};
      workers.Run([&](Closure closure) { pool.Schedule(std::move(closure)); }, 2,
                  [](void* arg) {
                    std::atomic<int>& bodies = *static_cast<std::atomic<int>*>(arg);
                    ++bodies;
                    while (bodies < 2) std::this_thread::yield();
                  },
                  &begun);
    }
    if (pool.scheduled() <= 5) return 0;
  }
  std::printf("worker pool: no thread stayed for the next call\n");
  return 1;
}

}  // namespace

int CheckWorkerPool() {
  int failures = CheckCallers("runs all", [](int) { return true; });
  failures += CheckCallers("drops every other closure", [](int number) { return number % 2 == 0; });
  failures += CheckCallers("drops all", [](int) { return false; });
  return failures + CheckLate() + CheckThrows() + CheckStays();
}
