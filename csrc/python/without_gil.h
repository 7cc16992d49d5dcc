// Calls into the kernels from Python: with the GIL released and Ctrl-C answered, if they take long.
#pragma once

#include <Python.h>
#include <pthread.h>
#include <time.h>

#include <cstdint>
#include <exception>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

// Takes the GIL back. In a daemon thread of an interpreter that has ended there is none any more:
// Python then ends the thread by unwinding its stack, through destructors that may not throw and
// would give up objects without the GIL. The thread stays here instead, until the process is gone.
void TakeGil(PyThreadState* state);

// The calling thread without the GIL, which listens to signals now and then.
class WithoutGil : public Cancellable {
 public:
  WithoutGil() : thread_(pthread_self()), state_(PyEval_SaveThread()), asked_(Now()) {
    cancelled = [](void* self) { return static_cast<WithoutGil*>(self)->Interrupted(); };
    cancelled_context = this;
  }
  WithoutGil(const WithoutGil&) = delete;
  // Not in a destructor, see above. Whether a signal's handler has raised an exception.
  bool End() {
    TakeGil(state_);
    return interrupted_;
  }

 private:
  // Milliseconds, of a clock that takes a few nanoseconds to read.
  static std::int64_t Now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1'000'000;
  }

  // Only this thread has a Python state to run the handlers with (and only if it is the main one).
  // To get the GIL from a busy thread takes 5 ms: hence not often.
  bool Interrupted() {
    constexpr std::int64_t kInterval = 100;
    if (!pthread_equal(pthread_self(), thread_)) return false;
    if (const std::int64_t now = Now(); now - asked_ >= kInterval) {
      Listen();
      asked_ = Now();
    }
    return interrupted_;
  }
  void Listen();

  const pthread_t thread_;
  PyThreadState* state_;
  std::int64_t asked_;
  bool interrupted_ = false;
};

// Returns call(cancellable), of about so much work. With kCancelled a Python exception is set.
template <typename Call>
Status RunWithoutGil(std::int64_t work, const Call& call) {
  // What takes less keeps the GIL: to release it costs as much as a small problem.
  constexpr std::int64_t kMuch = 1 << 16;
  if (work < kMuch) return call(Cancellable());
  Status status;
  std::exception_ptr error;
  WithoutGil without;
  try {
    status = call(static_cast<const Cancellable&>(without));
  } catch (...) {
    error = std::current_exception();
  }
  const bool interrupted = without.End();
  if (error) std::rethrow_exception(error);
  // Whatever else has happened: an exception that is set has to be seen.
  return interrupted ? Status(Status::Code::kCancelled, "interrupted") : status;
}

}  // namespace linreg_ops
