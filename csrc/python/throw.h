// What went wrong in the kernels, as the Python exception that says so.
#pragma once

#include <pybind11/pybind11.h>

#include <new>
#include <stdexcept>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

inline void Throw(const Status& status) {
  switch (status.code()) {
    case Status::Code::kOk:
      return;
    case Status::Code::kInvalidArgument:
      throw pybind11::value_error(status.message());
    case Status::Code::kOutOfMemory:
      throw std::bad_alloc();
    case Status::Code::kCancelled:
      throw pybind11::error_already_set();
    default:
      throw std::runtime_error(status.message());
  }
}

}  // namespace linreg_ops
