#include "python/without_gil.h"

#include <cxxabi.h>
#include <unistd.h>

namespace linreg_ops {

void TakeGil(PyThreadState* state) {
#ifdef __GLIBCXX__
  try {
    PyEval_RestoreThread(state);
  } catch (const abi::__forced_unwind&) {
    for (;;) pause();
  }
#else
  PyEval_RestoreThread(state);
#endif
}

void WithoutGil::Listen() {
  TakeGil(state_);
  interrupted_ = PyErr_CheckSignals() != 0;
  state_ = PyEval_SaveThread();
}

}  // namespace linreg_ops
