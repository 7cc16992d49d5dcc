// GPU memory for Python's arrays and for scratch, and what must outlive the work on it.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

namespace py = pybind11;

inline void Throw(const Status& status) {
  if (status.ok()) return;
  if (status.code() == Status::Code::kCancelled) throw py::error_already_set();
  if (status.code() == Status::Code::kInvalidArgument) throw py::value_error(status.message());
  throw std::runtime_error(status.message());
}

inline void Check(cudaError_t error, const char* what) { Throw(cuda::CheckCuda(error, what)); }

// Makes a device current while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    Check(cudaGetDevice(&previous_), "finding the current CUDA device");
    if (device != previous_) Check(cudaSetDevice(device), "choosing the CUDA device");
    changed_ = device != previous_;
  }
  DeviceGuard(const DeviceGuard&) = delete;
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline cudaStream_t ToStream(std::uintptr_t stream) {
  return reinterpret_cast<cudaStream_t>(stream);
}

// The device's pool, of this library's own. The default one gives what is free back to the driver
// whenever somebody waits for the GPU, and the next call pays for mapping it again.
inline cudaMemPool_t PoolOf(int device) {
  constexpr std::uint64_t kKept = 256 << 20;  // more than that goes back
  static std::mutex mutex;
  static auto* const pools = new std::map<int, cudaMemPool_t>;  // as long as the process
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = pools->find(device);
  if (found != pools->end()) return found->second;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  Check(cudaMemPoolCreate(&pool, &properties), "creating a pool of GPU memory");
  std::uint64_t kept = kKept;
  const cudaError_t error = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
  if (error != cudaSuccess) cudaMemPoolDestroy(pool);
  Check(error, "setting up a pool of GPU memory");
  pools->emplace(device, pool);
  return pool;
}

// Memory that is given back behind the work on the stream that wrote it, as PyTorch's and CuPy's
// own: who uses it on another stream orders that one before dropping it. The stream must still be
// there; the default ones always are. To wait for an event of the time when the memory was taken,
// on a stream of ours, would not lift that: what the owner enqueued since then, and dropped the
// memory behind, would lose it to others.
class DeviceMemory {
 public:
  DeviceMemory(int device, std::size_t bytes, cudaStream_t stream)
      : device_(device), stream_(stream) {
    const DeviceGuard guard(device);
    if (bytes == 0) return;
    Check(cudaMallocFromPoolAsync(&data_, bytes, PoolOf(device), stream), "allocating GPU memory");
  }
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() {
    if (data_ == nullptr) return;
    int previous = device_;  // the null stream is the current device's
    cudaGetDevice(&previous);
    if (previous != device_) cudaSetDevice(device_);
    // cudaFree alone waits for nothing where the memory came from a pool.
    if (cudaFreeAsync(data_, stream_) != cudaSuccess) {
      cudaDeviceSynchronize();
      cudaFree(data_);
      cudaGetLastError();
    }
    if (previous != device_) cudaSetDevice(previous);
  }
  void* data() const { return data_; }
  int device() const { return device_; }

 private:
  const int device_;
  const cudaStream_t stream_;
  void* data_ = nullptr;
};

// Arrays that the GPU may still read when a call returns, and whose library may not know it: kept
// until an event behind that work has passed, which every later call looks for. With the GIL.
class InUse {
 public:
  // On the current device.
  static void Keep(cudaStream_t stream, std::vector<py::object> owners) {
    cudaEvent_t done = nullptr;
    cudaError_t error = cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    if (error == cudaSuccess) error = cudaEventRecord(done, stream);
    if (error == cudaSuccess) {
      entries().push_back({done, std::move(owners)});
      return;
    }
    // Nothing tells when: wait.
    if (done != nullptr) cudaEventDestroy(done);
    cudaStreamSynchronize(stream);
    cudaGetLastError();
  }
  static void GiveBack() {
    std::vector<Entry> still;
    std::vector<std::vector<py::object>> passed;  // whose ends may run Python code, and calls
    for (Entry& entry : entries()) {
      if (cudaEventQuery(entry.done) == cudaErrorNotReady) {
        still.push_back(std::move(entry));
      } else {
        cudaEventDestroy(entry.done);
        passed.push_back(std::move(entry.owners));
      }
    }
    cudaGetLastError();
    entries() = std::move(still);
  }

 private:
  struct Entry {
    cudaEvent_t done;
    std::vector<py::object> owners;
  };
  static std::vector<Entry>& entries() {
    static auto* const instance = new std::vector<Entry>;  // as long as the process
    return *instance;
  }
};

}  // namespace linreg_ops
