// linreg_ops._kernels.cuda: the kernels on GPU arrays that come by DLPack, and a minimal array to
// hand results on, or to move NumPy arrays with where there is no other library.
#include "python/cuda_arrays.h"

#include <cuda_runtime.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/l2_loss_grad.h"

namespace py = pybind11;

namespace linreg_ops {
namespace {

// The parts of dlpack.h (version 0.8) that are used here.
struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};
struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor* self);
};
constexpr std::int32_t kDLCUDA = 2;
constexpr std::uint8_t kDLFloat = 2, kDLBfloat = 4;

void Throw(const Status& status) {
  if (status.ok()) return;
  if (status.code() == Status::Code::kInvalidArgument) throw py::value_error(status.message());
  throw std::runtime_error(status.message());
}

void Check(cudaError_t error, const char* what) { Throw(cuda::CheckCuda(error, what)); }

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

cudaStream_t ToStream(std::uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

// Memory that lives until its last user is gone; cudaFree waits for work that still uses it.
class DeviceMemory {
 public:
  DeviceMemory(int device, std::size_t bytes, cudaStream_t stream) : device_(device) {
    const DeviceGuard guard(device);
    if (bytes > 0) Check(cudaMallocAsync(&data_, bytes, stream), "allocating GPU memory");
  }
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() {
    if (data_ != nullptr) cudaFree(data_);
  }
  void* data() const { return data_; }
  int device() const { return device_; }

 private:
  const int device_;
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

std::int64_t Product(const std::vector<std::int64_t>& shape) {
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

std::string Describe(const std::vector<std::int64_t>& shape) {
  return py::str(py::tuple(py::cast(shape)));
}

// A caller's array. The capsule keeps its memory.
struct Borrowed {
  py::object owner;
  DType type;
  std::vector<std::int64_t> shape;
  void* data;
  int device;
};

Borrowed Borrow(const py::object& array, const char* name, std::uintptr_t stream) {
  if (py::isinstance<DeviceArray>(array)) {
    const auto& own = array.cast<const DeviceArray&>();
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
  const py::capsule capsule = array.attr("__dlpack__")(py::arg("stream") = stream ? stream : 1);
  const auto* managed = capsule.get_pointer<DLManagedTensor>();
  const DLTensor& tensor = managed->dl_tensor;
  Borrowed result{capsule, DType::kFloat32, {}, nullptr, tensor.device.device_id};
  result.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  const DLDataType type = tensor.dtype;
  if (type.code == kDLBfloat && type.bits == 16) {
    result.type = DType::kBFloat16;
  } else if (type.code == kDLFloat && type.bits == 16) {
    result.type = DType::kFloat16;
  } else if (type.code == kDLFloat && type.bits == 64) {
    result.type = DType::kFloat64;
  } else if (type.code != kDLFloat || type.bits != 32 || type.lanes != 1) {
    throw py::type_error(std::string(name) +
                         " must be float32, float64, float16 or bfloat16, got " +
                         "DLPack type code " + std::to_string(type.code) + " of " +
                         std::to_string(type.bits) + " bits");
  }
  std::int64_t expected = 1;
  for (std::int32_t i = tensor.ndim; tensor.strides != nullptr && i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected && Product(result.shape) > 0) {
      throw py::value_error(std::string(name) + " must be C-contiguous, got shape " +
                            Describe(result.shape));
    }
    expected *= tensor.shape[i];
  }
  result.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  return result;
}

// The arrays of a call as the kernels' Data.
struct Problem {
  Data data;
  std::vector<std::int64_t> w_shape;
  int device = 0;
  std::vector<py::object> owners;
};

Problem MakeProblem(const py::object& x_array, const py::object& w_array, const py::object& y_array,
                    bool intercept, const py::object& s_array, std::uintptr_t stream) {
  const Borrowed x = Borrow(x_array, "x", stream), w = Borrow(w_array, "w", stream);
  Problem p;
  p.owners = {x.owner, w.owner};
  p.device = x.device;
  p.w_shape = w.shape;
  Data& data = p.data;
  const auto mismatch = [&](const char* needs, const char* name, const Borrowed& got) {
    throw py::value_error(std::string(name) + " must be " + needs + ", got " + name + " of shape " +
                          Describe(got.shape) + " for x of shape " + Describe(x.shape));
  };
  if (x.shape.size() != 2) {
    throw py::value_error("x must be [n, d], got shape " + Describe(x.shape));
  }
  data.x_type = x.type;
  data.w_type = w.type;
  if (const Status types = Validate(data); !types.ok()) throw py::type_error(types.message());
  const std::size_t rank = w.shape.size();
  data.shape = {x.shape[0], x.shape[1], rank == 2 ? w.shape[1] : 1, intercept};
  if (rank < 1 || rank > 2 || w.shape[0] != data.shape.weight_rows()) {
    mismatch(intercept ? "[d + 1] or [d + 1, k], intercept first" : "[d] or [d, k]", "w", w);
  }
  const auto take = [&](const py::object& array, const char* name, const char* needs,
                        const std::vector<std::int64_t>& shape) -> const void* {
    if (array.is_none()) return nullptr;
    const Borrowed a = Borrow(array, name, stream);
    if (a.type != w.type) {
      throw py::type_error(std::string(name) + " must have w's dtype " + NameOf(w.type) + ", got " +
                           NameOf(a.type));
    }
    if (a.shape != shape) mismatch(needs, name, a);
    if (a.device != x.device) throw py::value_error(std::string(name) + " must be on x's GPU");
    p.owners.push_back(a.owner);
    return a.data;
  };
  if (w.device != x.device) throw py::value_error("w must be on x's GPU");
  const std::int64_t n = data.shape.n;
  data.x = x.data;
  data.w = w.data;
  data.y =
      rank == 1 ? take(y_array, "y", "[n]", {n}) : take(y_array, "y", "[n, k]", {n, data.shape.k});
  data.sample_weight = take(s_array, "sample_weight", "[n]", {n});
  Throw(Validate(data));
  return p;
}

cuda::Device CurrentDevice(bool bulk_copies) {
  cuda::Device device;
  Throw(cuda::CurrentDevice(&device));
  device.bulk_copies = device.bulk_copies && bulk_copies;
  return device;
}

py::tuple LossAndGrad(const py::object& x, const py::object& w, const py::object& y, bool intercept,
                      const py::object& sample_weight, bool loss_per_target, std::uintptr_t stream,
                      bool bulk_copies) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight, stream);
  const DeviceGuard guard(p.device);
  const cuda::Device device = CurrentDevice(bulk_copies);
  std::vector<std::int64_t> loss_shape;
  if (loss_per_target && p.w_shape.size() == 2) loss_shape = {p.w_shape[1]};
  DeviceArray loss(p.data.w_type, loss_shape, p.device, ToStream(stream));
  DeviceArray grad(p.data.w_type, p.w_shape, p.device, ToStream(stream));
  const std::int64_t bytes = cuda::WorkspaceBytes(p.data, device);
  const Workspace workspace(bytes, ToStream(stream));
  LossGrad out;
  out.loss = loss.data();
  out.loss_per_target = loss_per_target;
  out.grad = grad.data();
  Throw(cuda::ComputeLossGrad(p.data, out, device, ToStream(stream), workspace.data(), bytes));
  return py::make_tuple(loss, grad);
}

py::tuple GradientDescent(
    const py::object& x, const py::object& w, const py::object& y,
    const py::array_t<double, py::array::c_style | py::array::forcecast>& learning_rate,
    std::int64_t num_steps, bool intercept, const py::object& sample_weight, double momentum,
    std::uintptr_t stream, bool bulk_copies) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight, stream);
  if (learning_rate.ndim() > 1) {
    throw py::value_error("learning_rate must be a scalar or have num_steps entries");
  }
  constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;
  if (num_steps < 0 || num_steps > kMostSteps) {
    throw py::value_error("num_steps must be between 0 and 2^40, got " + std::to_string(num_steps));
  }
  const DeviceGuard guard(p.device);
  const cuda::Device device = CurrentDevice(bulk_copies);
  Descent descent;
  descent.num_steps = num_steps;
  descent.rates = learning_rate.data();
  descent.num_rates = learning_rate.ndim() == 0 ? 1 : learning_rate.shape(0);
  descent.momentum = momentum;
  if (descent.num_rates != 1 && descent.num_rates != num_steps) {
    throw py::value_error(
        "learning_rate must be a scalar or have num_steps=" + std::to_string(num_steps) +
        " entries, got " + std::to_string(descent.num_rates));
  }
  DeviceArray new_w(p.data.w_type, p.w_shape, p.device, ToStream(stream));
  DeviceArray losses(p.data.w_type, {num_steps + 1}, p.device, ToStream(stream));
  descent.w = new_w.data();
  descent.losses = losses.data();
  const std::int64_t bytes = cuda::DescentWorkspaceBytes(p.data, descent, device);
  const Workspace workspace(bytes, ToStream(stream));
  Throw(cuda::ComputeDescent(p.data, descent, device, ToStream(stream), workspace.data(), bytes));
  return py::make_tuple(new_w, losses);
}

DeviceArray FromHost(const py::buffer& bytes, const std::string& dtype,
                     const std::vector<std::int64_t>& shape, std::uintptr_t stream) {
  const py::buffer_info info = bytes.request();
  for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    if (dtype != NameOf(type)) continue;
    int device = 0;
    Check(cudaGetDevice(&device), "finding the current CUDA device");
    DeviceArray array(type, shape, device, ToStream(stream));
    if (info.ndim != 1 || info.itemsize != 1 ||
        static_cast<std::size_t>(info.size) != array.bytes()) {
      throw py::value_error("the buffer does not have the shape's bytes");
    }
    if (array.bytes() > 0) {
      Check(cudaMemcpyAsync(array.data(), info.ptr, array.bytes(), cudaMemcpyHostToDevice,
                            ToStream(stream)),
            "copying to the GPU");
      Check(cudaStreamSynchronize(ToStream(stream)), "copying to the GPU");
    }
    return array;
  }
  throw py::type_error("dtype must be float32, float64, float16 or bfloat16, got " + dtype);
}

// Waits for the stream: errors of earlier work on it show here.
py::bytes ToHost(const DeviceArray& array, std::uintptr_t stream) {
  const DeviceGuard guard(array.device());
  std::string bytes(array.bytes(), '\0');
  Check(cudaStreamSynchronize(ToStream(stream)), "waiting for the stream");
  if (!bytes.empty()) {
    Check(cudaMemcpyAsync(bytes.data(), array.data(), bytes.size(), cudaMemcpyDeviceToHost,
                          ToStream(stream)),
          "copying from the GPU");
    Check(cudaStreamSynchronize(ToStream(stream)), "copying from the GPU");
  }
  return py::bytes(bytes);
}

py::dict DeviceProperties() {
  const cuda::Device device = CurrentDevice(true);
  py::dict result;
  result["multiprocessors"] = device.multiprocessors;
  result["compute_capability"] = device.compute_capability;
  result["shared_per_block"] = device.shared_per_block;
  result["l2_bytes"] = device.l2_bytes;
  result["cooperative_launch"] = device.cooperative_launch;
  return result;
}

}  // namespace

void RegisterCuda(py::module_& module) {
  using namespace py::literals;
  py::module_ m = module.def_submodule("cuda", "The kernels on GPU arrays.");
  py::class_<DeviceArray>(m, "DeviceArray", "A contiguous array on a GPU, for any DLPack consumer.")
      .def_property_readonly("shape",
                             [](const DeviceArray& a) { return py::tuple(py::cast(a.shape())); })
      .def_property_readonly("dtype", [](const DeviceArray& a) { return NameOf(a.type()); })
      .def("to_bytes", &ToHost, "stream"_a = 0)
      .def("__dlpack_device__",
           [](const DeviceArray& a) { return py::make_tuple(kDLCUDA, a.device()); })
      .def(
          "__dlpack__",
          [](const DeviceArray& a, std::optional<std::intptr_t> stream, const py::kwargs&) {
            a.MakeWait(stream.value_or(1));
            return a.ToDLPack();
          },
          py::kw_only(), "stream"_a = py::none());
  m.def("from_bytes", &FromHost, "bytes"_a, "dtype"_a, "shape"_a, "stream"_a = 0);
  m.def("device_properties", &DeviceProperties);
  m.def("loss_and_grad", &LossAndGrad, "x"_a, "w"_a, "y"_a = py::none(), py::kw_only(),
        "intercept"_a = false, "sample_weight"_a = py::none(), "loss_per_target"_a = false,
        "stream"_a = 0, "bulk_copies"_a = true);
  m.def("gradient_descent", &GradientDescent, "x"_a, "w"_a, "y"_a, "learning_rate"_a, "num_steps"_a,
        py::kw_only(), "intercept"_a = false, "sample_weight"_a = py::none(), "momentum"_a = 0.0,
        "stream"_a = 0, "bulk_copies"_a = true);
}

}  // namespace linreg_ops
