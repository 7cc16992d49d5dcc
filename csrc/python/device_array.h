// Memory of a GPU for Python: scratch, and arrays that DLPack hands on.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/l2_loss_grad.h"
#include "python/dlpack.h"

namespace linreg_ops {

namespace py = pybind11;

inline void Throw(const Status& status) {
  if (status.ok()) return;
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

// Memory that is given back behind the work on the stream that wrote it, as PyTorch's and CuPy's
// own: who uses it on another stream orders that one before dropping it.
class DeviceMemory {
 public:
  DeviceMemory(int device, std::size_t bytes, cudaStream_t stream)
      : device_(device), stream_(stream) {
    const DeviceGuard guard(device);
    if (bytes > 0) Check(cudaMallocAsync(&data_, bytes, stream), "allocating GPU memory");
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

// Scratch memory, given back in stream order.
class Workspace {
 public:
  Workspace(std::int64_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes > 0) {
      Check(cudaMallocAsync(&data_, static_cast<std::size_t>(bytes), stream),
            "allocating the workspace");
    }
  }
  Workspace(const Workspace&) = delete;
  ~Workspace() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream_);
  }
  void* data() const { return data_; }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
};

inline std::int64_t Product(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

// A contiguous array on a GPU, with DLPack to hand it on.
class DeviceArray {
 public:
  DeviceArray(DType type, std::vector<std::int64_t> shape, int device, cudaStream_t stream)
      : type_(type),
        shape_(std::move(shape)),
        stream_(stream),
        memory_(std::make_shared<DeviceMemory>(
            device, static_cast<std::size_t>(Product(shape_)) * SizeOf(type), stream)) {}

  DType type() const { return type_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  void* data() const { return memory_->data(); }
  int device() const { return memory_->device(); }
  std::size_t bytes() const { return static_cast<std::size_t>(Product(shape_)) * SizeOf(type_); }

  // The consumer's stream waits for the one that writes this array. DLPack's numbers for the legacy
  // and the per-thread default stream are CUDA's handles for them; −1 asks for nothing.
  void MakeWait(std::intptr_t consumer) const {
    const auto stream = reinterpret_cast<cudaStream_t>(consumer);
    if (consumer == -1 || stream == stream_) return;
    const DeviceGuard guard(device());
    cudaEvent_t event;
    Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    cudaError_t error = cudaEventRecord(event, stream_);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(stream, event, 0);
    cudaEventDestroy(event);
    Check(error, "ordering two streams");
  }

  py::capsule ToDLPack() const {
    struct Exported {
      DLManagedTensor managed;
      std::vector<std::int64_t> shape;
      std::shared_ptr<DeviceMemory> memory;
    };
    auto* exported = new Exported{{}, shape_, memory_};
    DLTensor& tensor = exported->managed.dl_tensor;
    tensor.data = data();
    tensor.device = {kDLCUDA, device()};
    tensor.ndim = static_cast<std::int32_t>(shape_.size());
    tensor.dtype = {type_ == DType::kBFloat16 ? kDLBfloat : kDLFloat,
                    static_cast<std::uint8_t>(8 * SizeOf(type_)), 1};
    tensor.shape = exported->shape.data();
    exported->managed.manager_ctx = exported;
    exported->managed.deleter = [](DLManagedTensor* self) {
      delete static_cast<Exported*>(self->manager_ctx);
    };
    return py::capsule(&exported->managed, "dltensor", [](PyObject* capsule) {
      // Whoever takes the tensor renames the capsule and calls the deleter later.
      if (!PyCapsule_IsValid(capsule, "dltensor")) return;
      auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
      managed->deleter(managed);
    });
  }

 private:
  DType type_;
  std::vector<std::int64_t> shape_;
  cudaStream_t stream_;
  std::shared_ptr<DeviceMemory> memory_;
};

}  // namespace linreg_ops
