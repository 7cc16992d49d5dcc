#include "python/borrowed_array.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "python/device_array.h"
#include "python/dlpack.h"

namespace linreg_ops {

std::string Describe(const std::vector<std::int64_t>& shape) {
  return py::str(py::tuple(py::cast(shape)));
}

// What an array's __dlpack__ has returned: a capsule's name says what its pointer points to, and
// whether somebody has taken the tensor already.
static const DLTensor& TensorOf(const py::object& capsule, const char* name) {
  constexpr char kName[] = "dltensor";
  if (PyCapsule_IsValid(capsule.ptr(), kName)) {
    return static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kName))->dl_tensor;
  }
  std::string got = py::str(py::type::of(capsule));
  if (PyCapsule_CheckExact(capsule.ptr())) {
    const char* const other = PyCapsule_GetName(capsule.ptr());
    got = other == nullptr ? "one without a name" : "one named '" + std::string(other) + "'";
    if (got == "one named 'used_dltensor'") got += ", which was used already";
  }
  throw py::type_error(std::string(name) + ".__dlpack__ must return a new capsule named '" + kName +
                       "', got " + got);
}

Borrowed Borrow(const py::object& array, const char* name, std::uintptr_t stream) {
  if (py::isinstance<DeviceArray>(array)) {
    const auto& own = array.cast<const DeviceArray&>();
    own.MakeWait(static_cast<std::intptr_t>(stream));
    return {array, own.type(), own.shape(), own.data(), own.device()};
  }
  if (!py::hasattr(array, "__dlpack__")) {
    throw py::type_error(std::string(name) + " must be an array on a GPU that supports DLPack " +
                         "(PyTorch, CuPy, JAX), got " + std::string(py::str(py::type::of(array))));
  }
  // Before the export: an array of host memory would not take a stream.
  const auto device = array.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  if (device.first != kDLCUDA) {
    throw py::type_error(std::string(name) +
                         " must be in the memory of an NVIDIA GPU, got DLPack " + "device type " +
                         std::to_string(device.first));
  }
  // DLPack's name for the legacy default stream is 1.
  const py::object capsule = array.attr("__dlpack__")(py::arg("stream") = stream ? stream : 1);
  const DLTensor& tensor = TensorOf(capsule, name);
  Borrowed result{capsule, DType::kFloat32, {}, nullptr, tensor.device.device_id};
  if (tensor.ndim < 0) {
    throw py::value_error(std::string(name) + " must have a rank of 0 or more, got " +
                          std::to_string(tensor.ndim));
  }
  result.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  const DLDataType type = tensor.dtype;
  const bool one = type.lanes == 1;
  if (one && type.code == kDLBfloat && type.bits == 16) {
    result.type = DType::kBFloat16;
  } else if (one && type.code == kDLFloat && type.bits == 16) {
    result.type = DType::kFloat16;
  } else if (one && type.code == kDLFloat && type.bits == 64) {
    result.type = DType::kFloat64;
  } else if (!one || type.code != kDLFloat || type.bits != 32) {
    throw py::type_error(
        std::string(name) + " must be float32, float64, float16 or bfloat16, got " +
        "DLPack type code " + std::to_string(type.code) + " of " + std::to_string(type.bits) +
        " bits and " + std::to_string(type.lanes) + " lanes");
  }
  const auto& shape = result.shape;
  const bool empty = std::count(shape.begin(), shape.end(), 0) > 0;
  std::uint64_t expected = 1;  // wraps around for an array that is none: repeated by strides of 0
  for (std::int32_t i = tensor.ndim; tensor.strides != nullptr && !empty && i-- > 0;) {
    if (shape[i] != 1 && static_cast<std::uint64_t>(tensor.strides[i]) != expected) {
      throw py::value_error(std::string(name) + " must be C-contiguous, got shape " +
                            Describe(shape));
    }
    expected *= static_cast<std::uint64_t>(shape[i]);
  }
  result.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  return result;
}

}  // namespace linreg_ops
