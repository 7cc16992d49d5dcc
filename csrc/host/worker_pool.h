// cpu::Threads::run for any pool that can schedule a closure: TensorFlow's, XLA's, our own.
//
// The caller works too and never waits for a thread that has not come: a pool that is busy, or that
// was lost in a fork, costs time and cannot deadlock.
//
// A worker that has done its share stays awake for a moment, for the caller's next call: waking one
// takes 20 to 100 microseconds, as long as a pass over some megabytes. LINREG_OPS_STAY_AWAKE=0 in
// the environment turns that off; `python -m benchmarks.staying_awake` shows what it gives and
// costs.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

namespace linreg_ops {
namespace cpu {

// Whose threads a pool has. The host's stay as they are. Ours may change processors: on a virtual
// machine Linux takes a halted virtual processor for a busy one, and puts a thread that it wakes
// behind its waker, for a time slice of 4 ms.
enum class Owner { kHost, kOurs };

// The threads that a pool has lent. Of n threads one is always left to others, as the caller is one
// of our n; and a worker that stays gives way to any thread that wants to run.
class WorkerPool {
 public:
  explicit WorkerPool(Owner owner) : state_(std::make_shared<State>(owner)) {}

  // `schedule(closure)` runs the copyable, nullary closure at some later time on another thread, or
  // destroys it.
  template <typename Schedule>
  void Run(const Schedule& schedule, int workers, void (*body)(void* arg), void* arg) {
    Job job = {body, arg, workers - 1};
    const OpenJob open(*state_, job);
    const int missing = state_->Missing(workers - 1);
    for (int i = 0; i < missing; ++i) {
      schedule([ticket = std::make_shared<Ticket>(state_)] { ticket->Serve(); });
    }
    if (missing > 0) sched_yield();
    body(arg);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kStay{100};
  static constexpr int kSpins = 32;  // before another thread may have the processor

  // One call of Run. It lives there: nobody touches it after `running`, once closed, is 0.
  struct Job {
    void (*body)(void* arg);
    void* arg;
    int vacant;  // bodies that nobody has begun
    std::atomic<int> running{0};
    Job* next = nullptr;
  };

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // Moves this thread to another processor, if there is one that it may run on.
  static void LeaveProcessor(int processor) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof(others), &others) != 0) return;
    sched_setaffinity(0, sizeof(allowed), &allowed);
  }

  static bool StayWanted() {
    const char* const value = std::getenv("LINREG_OPS_STAY_AWAKE");
    return value == nullptr || std::strcmp(value, "0") != 0;
  }

  class State {
   public:
    explicit State(Owner owner) : may_move_(owner == Owner::kOurs) {}

    std::atomic<int> coming{0};  // closures that are scheduled and have not begun

    void Open(Job& job) {
      callers_processor_ = sched_getcpu();
      std::lock_guard<std::mutex> lock(mu_);
      job.next = jobs_;
      jobs_ = &job;
      vacant_ += job.vacant;
    }

    // How many threads to schedule, beside those that are here or on their way.
    int Missing(int wanted) const { return std::min(wanted, vacant_ - idle_ - coming); }

    // The work is claimed by now, so what is left is the tail of a chunk: worth spinning for. Not
    // forever: the thread that has it may have lost its processor to this one.
    void Close(Job& job) {
      {
        std::lock_guard<std::mutex> lock(mu_);
        vacant_ -= job.vacant;
        Job** at = &jobs_;
        while (*at != &job) at = &(*at)->next;
        *at = job.next;
      }
      for (int spins = 1; job.running.load(std::memory_order_acquire) != 0; ++spins) {
        if (spins % kSpins == 0) sched_yield();
        Pause();
      }
    }

    // What a thread does here.
    void Serve() {
      if (may_move_) {
        const int processor = sched_getcpu();
        if (processor == callers_processor_) LeaveProcessor(processor);
      }
      do {
        while (Job* const job = Begin()) {
          job->body(job->arg);
          job->running.fetch_sub(1, std::memory_order_release);
        }
      } while (may_stay_ && AwaitJob());
    }

   private:
    // A job of which this thread has a body to run, or null.
    Job* Begin() {
      std::lock_guard<std::mutex> lock(mu_);
      for (Job* job = jobs_; job != nullptr; job = job->next) {
        if (job->vacant == 0) continue;
        --job->vacant;
        --vacant_;
        job->running.fetch_add(1, std::memory_order_relaxed);
        return job;
      }
      return nullptr;
    }

    bool AwaitJob() {
      const Clock::time_point end = Clock::now() + kStay;
      ++idle_;
      for (int spins = 1; vacant_.load(std::memory_order_relaxed) <= 0; ++spins) {
        if (spins % kSpins == 0) {
          if (Clock::now() > end) break;
          sched_yield();
        }
        Pause();
      }
      --idle_;
      return vacant_ > 0;  // whoever has opened a job meanwhile counts on this thread
    }

    const bool may_move_;
    const bool may_stay_ = StayWanted();
    std::mutex mu_;
    Job* jobs_ = nullptr;
    std::atomic<int> vacant_{0};  // of all jobs
    std::atomic<int> idle_{0};
    std::atomic<int> callers_processor_{-1};
  };

  class OpenJob {
   public:
    OpenJob(State& state, Job& job) : state_(state), job_(job) { state.Open(job); }
    ~OpenJob() { state_.Close(job_); }
    OpenJob(const OpenJob&) = delete;
    OpenJob& operator=(const OpenJob&) = delete;

   private:
    State& state_;
    Job& job_;
  };

  // What a closure holds, so that nobody counts on one that was dropped.
  class Ticket {
   public:
    explicit Ticket(std::shared_ptr<State> state) : state_(std::move(state)) { ++state_->coming; }
    ~Ticket() {
      if (!arrived_) --state_->coming;
    }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    void Serve() {
      arrived_ = true;
      --state_->coming;
      state_->Serve();
    }

   private:
    const std::shared_ptr<State> state_;
    bool arrived_ = false;
  };

  const std::shared_ptr<State> state_;
};

// The process's T, never destroyed. A forked child, where its threads are gone and its locks may be
// held by them, gets a new one.
template <typename T>
T& OneOfProcess() {
  static T* instance = nullptr;
  static const bool made = [] {
    pthread_atfork(nullptr, nullptr, [] { instance = new T; });
    instance = new T;
    return true;
  }();
  (void)made;
  return *instance;
}

}  // namespace cpu
}  // namespace linreg_ops
