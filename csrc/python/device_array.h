// A contiguous array on a GPU, for Python and for whoever takes it by DLPack.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/l2_loss_grad.h"
#include "python/device_memory.h"
#include "python/dlpack.h"

namespace linreg_ops {

inline std::int64_t Product(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

// A contiguous array on a GPU, with DLPack to hand it on.
class DeviceArray {
 public:
  DeviceArray(DType type, std::vector<std::int64_t> shape, int device, void* stream)
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
  // and the per-thread default stream are CUDA's handles for them, and 0 is the legacy one too; −1
  // asks for nothing.
  void MakeWait(std::intptr_t consumer) const {
    constexpr std::intptr_t kLegacy = 1;
    const auto named = [](std::intptr_t stream) { return stream == 0 ? kLegacy : stream; };
    if (consumer == -1 || named(consumer) == named(reinterpret_cast<std::intptr_t>(stream_)))
      return;
    const DeviceGuard guard(device());
    Throw(cuda::Order(stream_, reinterpret_cast<void*>(consumer)));
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
  void* stream_;
  std::shared_ptr<DeviceMemory> memory_;
};

}  // namespace linreg_ops
