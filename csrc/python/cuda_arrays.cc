// linreg_ops._kernels.cuda: the kernels on GPU arrays that come by DLPack, and a minimal array to
// hand results on, or to move NumPy arrays with where there is no other library.
#include "python/cuda_arrays.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "host/gpu_memory.h"
#include "kernels/cuda/plan.h"
#include "kernels/l2_loss_grad.h"
#include "python/borrowed_array.h"
#include "python/device_array.h"
#include "python/dlpack.h"
#include "python/without_gil.h"

namespace linreg_ops {
namespace {

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

// The current device's figures, asked for once: a dozen calls of the driver.
cuda::Device CurrentDevice() {
  static auto* const known = new std::map<int, cuda::Device>;  // as long as the process
  int ordinal = 0;
  Throw(cuda::CurrentOrdinal(&ordinal));
  const auto found = known->find(ordinal);
  if (found != known->end()) return found->second;
  cuda::Device device;
  Throw(cuda::CurrentDevice(&device));
  return known->emplace(ordinal, device).first->second;
}

// A call's stream and inputs: refused if the stream records; on the way out the inputs are kept
// until the GPU has read them, unless the caller's library orders their memory by the same stream.
class Enqueuing {
 public:
  Enqueuing(const Problem& problem, std::uintptr_t stream, bool keep_inputs)
      : problem_(problem), stream_(ToStream(stream)), keep_inputs_(keep_inputs) {
    InUse::GiveBack();
    if (cuda::IsCapturing(stream_)) {
      throw std::runtime_error(
          "stream is being captured into a CUDA graph, which would own the memory of the results: "
          "call outside the capture");
    }
  }
  Enqueuing(const Enqueuing&) = delete;
  ~Enqueuing() {
    if (keep_inputs_) InUse::Keep(stream_, problem_.owners);
  }

 private:
  const Problem& problem_;
  void* const stream_;
  const bool keep_inputs_;
};

// To release the GIL costs less than a launch, which may wait until there is room for it.
template <typename Call>
void Enqueue(const Call& call) {
  constexpr std::int64_t kAlways = std::numeric_limits<std::int64_t>::max();
  Throw(RunWithoutGil(kAlways, call));
}

py::tuple LossAndGrad(const py::object& x, const py::object& w, const py::object& y, bool intercept,
                      const py::object& sample_weight, bool loss_per_target, std::uintptr_t stream,
                      bool keep_inputs) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight, stream);
  const DeviceGuard guard(p.device);
  const Enqueuing enqueuing(p, stream, keep_inputs);
  const cuda::Device device = CurrentDevice();
  std::vector<std::int64_t> loss_shape;
  if (loss_per_target && p.w_shape.size() == 2) loss_shape = {p.w_shape[1]};
  DeviceArray loss(p.data.w_type, loss_shape, p.device, ToStream(stream));
  DeviceArray grad(p.data.w_type, p.w_shape, p.device, ToStream(stream));
  const std::int64_t bytes = cuda::WorkspaceBytes(p.data, device);
  const DeviceMemory workspace(p.device, static_cast<std::size_t>(bytes), ToStream(stream));
  LossGrad out;
  out.loss = loss.data();
  out.loss_per_target = loss_per_target;
  out.grad = grad.data();
  Enqueue([&](const Cancellable&) {
    return cuda::ComputeLossGrad(p.data, out, device, ToStream(stream), workspace.data(), bytes);
  });
  return py::make_tuple(loss, grad);
}

py::tuple GradientDescent(
    const py::object& x, const py::object& w, const py::object& y,
    const py::array_t<double, py::array::c_style | py::array::forcecast>& learning_rate,
    std::int64_t num_steps, bool intercept, const py::object& sample_weight, double momentum,
    std::uintptr_t stream, bool keep_inputs, bool cooperative_launch) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight, stream);
  if (learning_rate.ndim() > 1) {
    throw py::value_error("learning_rate must be a scalar or have num_steps entries");
  }
  constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;
  if (num_steps < 0 || num_steps > kMostSteps) {
    throw py::value_error("num_steps must be between 0 and 2^40, got " + std::to_string(num_steps));
  }
  const DeviceGuard guard(p.device);
  const Enqueuing enqueuing(p, stream, keep_inputs);
  cuda::Device device = CurrentDevice();
  device.cooperative_launch = device.cooperative_launch && cooperative_launch;
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
  const DeviceMemory workspace(p.device, static_cast<std::size_t>(bytes), ToStream(stream));
  Enqueue([&](const Cancellable& cancellable) {
    descent.cancelled = cancellable.cancelled;
    descent.cancelled_context = cancellable.cancelled_context;
    return cuda::ComputeDescent(p.data, descent, device, ToStream(stream), workspace.data(), bytes);
  });
  return py::make_tuple(new_w, losses);
}

DType TypeOf(const std::string& dtype) {
  for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    if (dtype == NameOf(type)) return type;
  }
  throw py::type_error("dtype must be float32, float64, float16 or bfloat16, got " + dtype);
}

DeviceArray FromHost(const py::buffer& bytes, const std::string& dtype,
                     const std::vector<std::int64_t>& shape, std::uintptr_t stream) {
  const py::buffer_info info = bytes.request();
  const DType type = TypeOf(dtype);
  int device = 0;
  Throw(cuda::CurrentOrdinal(&device));
  DeviceArray array(type, shape, device, ToStream(stream));
  if (info.ndim != 1 || info.itemsize != 1 ||
      static_cast<std::size_t>(info.size) != array.bytes()) {
    throw py::value_error("the buffer does not have the shape's bytes");
  }
  if (array.bytes() > 0) {
    Throw(cuda::CopyToDevice(array.data(), info.ptr, array.bytes(), ToStream(stream)));
  }
  return array;
}

// Waits for the stream, and for the one that writes the array: errors of earlier work show here.
py::bytes ToHost(const DeviceArray& array, std::uintptr_t stream) {
  const DeviceGuard guard(array.device());
  array.MakeWait(static_cast<std::intptr_t>(stream));
  std::string bytes(array.bytes(), '\0');
  Throw(cuda::Wait(ToStream(stream)));
  if (!bytes.empty()) {
    Throw(cuda::CopyFromDevice(bytes.data(), array.data(), bytes.size(), ToStream(stream)));
  }
  return py::bytes(bytes);
}

py::dict DeviceProperties() {
  const cuda::Device device = CurrentDevice();
  py::dict result;
  result["multiprocessors"] = device.multiprocessors;
  result["compute_capability"] = device.compute_capability;
  result["shared_per_block"] = device.shared_per_block;
  result["l2_bytes"] = device.l2_bytes;
  result["code"] = device.code;
  result["cooperative_launch"] = device.cooperative_launch;
  return result;
}

// A call on the current device, without the arrays.
py::dict PlanOf(std::int64_t n, std::int64_t d, std::int64_t k, const std::string& dtype) {
  Data data;
  data.shape = {n, d, k, false};
  data.x_type = data.w_type = TypeOf(dtype);
  Throw(ValidateSizes(data.shape));
  const cuda::Device device = CurrentDevice();
  const cuda::FusedPlan plan = cuda::PlanPass(data, device);
  const cuda::Route& route = cuda::RouteOf(data.shape, plan);
  py::dict result;
  result["route"] = route.name;
  result["most_targets"] = route.most_targets;
  result["blocks"] = plan.blocks;
  result["threads"] = plan.threads;
  result["lanes"] = plan.lanes;
  result["rows_in_flight"] = plan.rows;
  result["bytes_in_flight"] = cuda::BytesInFlight(data, plan);
  result["shared_bytes"] = plan.shared_bytes;
  return result;
}

py::list Routes() {
  py::list result;
  for (const cuda::Route& route : cuda::kRoutes) {
    result.append(py::make_tuple(route.name, route.most_targets, route.budget));
  }
  return result;
}

}  // namespace

void RegisterCuda(py::module_& module) {
  using namespace py::literals;
  py::module_ m = module.def_submodule("cuda", "The kernels on GPU arrays.");
  // Local: the tests' PTX runner has another class of this name.
  py::class_<DeviceArray>(m, "DeviceArray", py::module_local(),
                          "A contiguous array on a GPU, for any DLPack consumer.")
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
  m.def("plan", &PlanOf, "n"_a, "d"_a, "k"_a = 1, "dtype"_a = "float32");
  m.def("routes", &Routes);
  m.def("loss_and_grad", &LossAndGrad, "x"_a, "w"_a, "y"_a = py::none(), py::kw_only(),
        "intercept"_a = false, "sample_weight"_a = py::none(), "loss_per_target"_a = false,
        "stream"_a = 0, "keep_inputs"_a = true);
  m.def("gradient_descent", &GradientDescent, "x"_a, "w"_a, "y"_a, "learning_rate"_a, "num_steps"_a,
        py::kw_only(), "intercept"_a = false, "sample_weight"_a = py::none(), "momentum"_a = 0.0,
        "stream"_a = 0, "keep_inputs"_a = true, "cooperative_launch"_a = true);
}

}  // namespace linreg_ops
