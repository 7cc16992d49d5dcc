// Arrays of other libraries on a GPU, taken by DLPack.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

// A caller's array. The owner keeps its memory.
struct Borrowed {
  pybind11::object owner;
  DType type;
  std::vector<std::int64_t> shape;
  void* data;
  int device;
};

// Ordered before what is enqueued on `stream` from now on. Throws a Python exception that calls the
// array `name` if it is none, or not on a GPU, not contiguous or of another type.
Borrowed Borrow(const pybind11::object& array, const char* name, std::uintptr_t stream);

std::string Describe(const std::vector<std::int64_t>& shape);

}  // namespace linreg_ops
