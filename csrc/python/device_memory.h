// GPU memory for Python's arrays and for scratch, and what must outlive the work on it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "host/gpu_memory.h"
#include "python/throw.h"

namespace linreg_ops {

namespace py = pybind11;

// Makes a device current while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    Throw(cuda::CurrentOrdinal(&previous_));
    if (device != previous_) Throw(cuda::MakeCurrent(device));
    changed_ = device != previous_;
  }
  DeviceGuard(const DeviceGuard&) = delete;
  ~DeviceGuard() {
    if (changed_) cuda::MakeCurrent(previous_);
  }

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline void* ToStream(std::uintptr_t stream) { return reinterpret_cast<void*>(stream); }

// Memory that is given back behind the work on the stream that wrote it, as PyTorch's and CuPy's
// own: who uses it on another stream orders that one before dropping it. The stream must still be
// there; the default ones always are. To wait for an event of the time when the memory was taken,
// on a stream of ours, would not lift that: what the owner enqueued since then, and dropped the
// memory behind, would lose it to others.
class DeviceMemory {
 public:
  DeviceMemory(int device, std::size_t bytes, void* stream) : device_(device), stream_(stream) {
    const DeviceGuard guard(device);
    if (bytes > 0) Throw(cuda::Allocate(device, bytes, stream, &data_));
  }
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() {
    if (data_ != nullptr) cuda::Free(device_, data_, stream_);
  }
  void* data() const { return data_; }
  int device() const { return device_; }

 private:
  const int device_;
  void* const stream_;
  void* data_ = nullptr;
};

// Arrays that the GPU may still read when a call returns, and whose library may not know it: kept
// until an event behind that work has passed, which every later call looks for. With the GIL.
class InUse {
 public:
  // On the current device.
  static void Keep(void* stream, std::vector<py::object> owners) {
    cuda::Event done;
    if (cuda::Record(stream, &done).ok()) {
      entries().push_back({std::move(done), std::move(owners)});
    } else {
      cuda::Wait(stream);  // nothing tells when
    }
  }
  static void GiveBack() {
    std::vector<Entry> still;
    std::vector<Entry> passed;  // whose ends may run Python code, and calls
    for (Entry& entry : entries()) {
      (cuda::HasPassed(entry.done) ? passed : still).push_back(std::move(entry));
    }
    entries() = std::move(still);
  }

 private:
  struct Entry {
    cuda::Event done;
    std::vector<py::object> owners;
  };
  static std::vector<Entry>& entries() {
    static auto* const instance = new std::vector<Entry>;  // as long as the process
    return *instance;
  }
};

}  // namespace linreg_ops
