// linreg_ops._kernels: the kernels on NumPy arrays. Checks and forwarding only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "kernels/l2_loss_grad.h"
#include "kernels/sizes.h"
#include "python/cuda_arrays.h"
#include "python/thread_pool.h"
#include "python/without_gil.h"

namespace py = pybind11;

namespace linreg_ops {
namespace {

using Array = py::array;
using OptionalArray = std::optional<py::array>;

std::string DescribeShape(const Array& a) { return py::str(a.attr("shape")); }

void Throw(const Status& status) {
  switch (status.code()) {
    case Status::Code::kOk:
      return;
    case Status::Code::kInvalidArgument:
      throw py::value_error(status.message());
    case Status::Code::kOutOfMemory:
      throw std::bad_alloc();
    case Status::Code::kCancelled:
      throw py::error_already_set();
    default:
      throw std::runtime_error(status.message());
  }
}

DType TypeOf(const py::dtype& dtype, const char* name) {
  switch (dtype.byteorder() == '=' ? dtype.num() : -1) {
    case py::detail::npy_api::NPY_FLOAT_:
      return DType::kFloat32;
    case py::detail::npy_api::NPY_DOUBLE_:
      return DType::kFloat64;
    case 23:  // NPY_HALF
      return DType::kFloat16;
    default:
      break;
  }
  const std::string got = py::str(dtype.attr("str"));
  const std::string type_name = py::str(dtype);
  if (type_name == "bfloat16") return DType::kBFloat16;  // of ml_dtypes
  throw py::type_error(std::string(name) +
                       " must be float32, float64, float16 or bfloat16 in native byte order, got " +
                       type_name + " (" + got + ")");
}

const void* CheckedData(const Array& a, const char* name) {
  if ((a.flags() & py::array::c_style) == 0) {
    throw py::value_error(
        std::string(name) +
        " must be C-contiguous (numpy.ascontiguousarray makes it so), got shape " +
        DescribeShape(a) + " with strides " + std::string(py::str(a.attr("strides"))));
  }
  return a.data();
}

// The arrays of a call as the kernels' Data, and the shapes of its results.
struct Problem {
  Data data;
  py::dtype w_dtype;
  std::vector<py::ssize_t> w_shape;
};

Problem MakeProblem(const Array& x, const Array& w, const OptionalArray& y, bool intercept,
                    const OptionalArray& sample_weight) {
  const auto mismatch = [&](const char* needs, const char* name, const Array& got) {
    throw py::value_error(std::string(name) + " must be " + needs + ", got " + name + " of shape " +
                          DescribeShape(got) + " for x of shape " + DescribeShape(x));
  };
  if (x.ndim() != 2) throw py::value_error("x must be [n, d], got shape " + DescribeShape(x));
  Problem p{{}, w.dtype(), {}};
  Data& data = p.data;
  data.x_type = TypeOf(x.dtype(), "x");
  data.w_type = TypeOf(w.dtype(), "w");
  if (const Status types = ValidateTypes(data.x_type, data.w_type); !types.ok()) {
    throw py::type_error(types.message());
  }
  data.shape.n = x.shape(0);
  data.shape.d = x.shape(1);
  data.shape.intercept = intercept;
  if (w.ndim() < 1 || w.ndim() > 2 || w.shape(0) != data.shape.weight_rows()) {
    mismatch(intercept ? "[d + 1] or [d + 1, k], intercept first" : "[d] or [d, k]", "w", w);
  }
  data.shape.k = w.ndim() == 1 ? 1 : w.shape(1);
  p.w_shape.assign(w.shape(), w.shape() + w.ndim());
  const auto check_type = [&](const Array& a, const char* name) {
    if (TypeOf(a.dtype(), name) != data.w_type) {
      throw py::type_error(std::string(name) + " must have w's dtype " + NameOf(data.w_type) +
                           ", got " + std::string(py::str(a.dtype())));
    }
  };
  if (y) {
    check_type(*y, "y");
    if (y->ndim() != w.ndim() || y->shape(0) != data.shape.n ||
        (w.ndim() == 2 && y->shape(1) != data.shape.k)) {
      mismatch(w.ndim() == 1 ? "[n]" : "[n, k]", "y", *y);
    }
    data.y = CheckedData(*y, "y");
  }
  if (sample_weight) {
    check_type(*sample_weight, "sample_weight");
    if (sample_weight->ndim() != 1 || sample_weight->shape(0) != data.shape.n) {
      mismatch("[n]", "sample_weight", *sample_weight);
    }
    data.sample_weight = CheckedData(*sample_weight, "sample_weight");
  }
  data.x = CheckedData(x, "x");
  data.w = CheckedData(w, "w");
  Throw(Validate(data));
  return p;
}

class Workspace {
 public:
  explicit Workspace(std::int64_t bytes) : bytes_(bytes) {
    if (bytes <= static_cast<std::int64_t>(sizeof(inline_))) return;
    heap_.reset(
        static_cast<char*>(::operator new(static_cast<std::size_t>(bytes), std::align_val_t(64))));
  }
  void* data() { return heap_ ? heap_.get() : inline_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Delete {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  alignas(64) char inline_[8192];
  std::unique_ptr<char, Delete> heap_;
  std::int64_t bytes_;
};

int CheckedThreads(std::optional<int> num_threads) {
  if (!num_threads) {
    static const int processors = AvailableProcessors();
    return processors;
  }
  if (*num_threads < 1 || *num_threads > 4096) {
    throw py::value_error("num_threads must be between 1 and 4096, got " +
                          std::to_string(*num_threads));
  }
  return *num_threads;
}

// Products of so many passes, and what they write.
std::int64_t Work(const Shape& shape, std::int64_t passes) {
  const std::int64_t rows = std::max<std::int64_t>(shape.n, 1);
  const std::int64_t columns = std::max<std::int64_t>(shape.weight_rows(), 1);
  return SaturatingProduct({rows, columns, std::max<std::int64_t>(shape.k, 1), passes});
}

// A loss of w's type as Python sees it: 0-d arrays become scalars.
py::object Scalar(const Array& a) { return a.attr("__getitem__")(py::tuple()); }

py::tuple LossAndGrad(const Array& x, const Array& w, const OptionalArray& y, bool intercept,
                      const OptionalArray& sample_weight, bool loss_per_target,
                      std::optional<int> num_threads, const std::optional<std::string>& isa) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight);
  const int count = CheckedThreads(num_threads);
  Array grad(p.w_dtype, p.w_shape);
  const bool per_column = loss_per_target && w.ndim() == 2;
  Array loss(p.w_dtype,
             per_column ? std::vector<py::ssize_t>{w.shape(1)} : std::vector<py::ssize_t>{});
  LossGrad out;
  out.loss = loss.mutable_data();
  out.loss_per_target = loss_per_target;
  out.grad = grad.mutable_data();
  const char* const isa_name = isa ? isa->c_str() : nullptr;
  Workspace workspace(cpu::WorkspaceBytes(p.data, count, isa_name));
  Throw(RunWithoutGil(Work(p.data.shape, 1), [&](const Cancellable& cancellable) {
    out.cancelled = cancellable.cancelled;
    out.cancelled_context = cancellable.cancelled_context;
    return cpu::ComputeLossGrad(p.data, out, PoolThreads(count), workspace.data(),
                                workspace.bytes(), isa_name);
  }));
  return py::make_tuple(per_column ? py::object(loss) : Scalar(loss), grad);
}

py::tuple GradientDescent(
    const Array& x, const Array& w, const OptionalArray& y,
    const py::array_t<double, py::array::c_style | py::array::forcecast>& rate,
    std::int64_t num_steps, bool intercept, const OptionalArray& sample_weight, double momentum,
    std::optional<int> num_threads, const std::optional<std::string>& isa) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight);
  const int count = CheckedThreads(num_threads);
  if (rate.ndim() > 1) {
    throw py::value_error("learning_rate must be a scalar or have num_steps entries, got shape " +
                          DescribeShape(rate));
  }
  Throw(ValidateSteps(num_steps));
  if (rate.ndim() == 1 && rate.shape(0) != num_steps) {
    throw py::value_error(
        "learning_rate must be a scalar or have num_steps=" + std::to_string(num_steps) +
        " entries, got " + std::to_string(rate.shape(0)));
  }
  Array new_w(p.w_dtype, p.w_shape);
  Array losses(p.w_dtype, std::vector<py::ssize_t>{num_steps + 1});
  Descent descent;
  descent.num_steps = num_steps;
  descent.rates = rate.data();
  descent.num_rates = rate.ndim() == 0 ? 1 : num_steps;
  descent.momentum = momentum;
  descent.w = new_w.mutable_data();
  descent.losses = losses.mutable_data();
  const char* const isa_name = isa ? isa->c_str() : nullptr;
  Workspace workspace(cpu::DescentWorkspaceBytes(p.data, count, isa_name));
  Throw(RunWithoutGil(Work(p.data.shape, num_steps + 1), [&](const Cancellable& cancellable) {
    descent.cancelled = cancellable.cancelled;
    descent.cancelled_context = cancellable.cancelled_context;
    return cpu::ComputeDescent(p.data, descent, PoolThreads(count), workspace.data(),
                               workspace.bytes(), isa_name);
  }));
  return py::make_tuple(new_w, losses);
}

std::string ActiveIsa() {
  const char* name = "";
  Throw(cpu::ActiveIsa(&name));
  return name;
}

py::dict Isas() {
  py::dict result;
  for (const cpu::Isa& isa : cpu::Isas()) result[isa.name] = isa.supported;
  return result;
}

// How a call on arrays of these sizes would run.
py::dict Plan(std::int64_t n, std::int64_t d, std::int64_t k, const py::dtype& x_type,
              const py::dtype& w_type, bool intercept, bool descent, std::optional<int> num_threads,
              const std::optional<std::string>& isa) {
  Data sizes;
  sizes.shape = {n, d, k, intercept};
  sizes.x_type = TypeOf(x_type, "dtype");
  sizes.w_type = TypeOf(w_type, "w_dtype");
  cpu::PlanInfo info;
  Throw(cpu::Explain(sizes, CheckedThreads(num_threads), descent, isa ? isa->c_str() : nullptr,
                     &info));
  py::dict plan;
  plan["isa"] = info.isa;
  plan["route"] = info.route.name;
  plan["reason"] = info.route.reason;
  plan["workers"] = info.workers;
  plan["tasks"] = info.tasks;
  plan["tile_rows"] = info.tile_rows;
  plan["workspace_bytes"] = info.workspace_bytes;
  return plan;
}

py::dict Routes() {
  py::dict result;
  for (const cpu::RouteInfo& route : cpu::Routes()) {
    result[route.name] = py::make_tuple(route.takes, route.reason);
  }
  return result;
}

py::dict BuildConfig() {
  py::dict config;
  config["version"] = LINREG_OPS_VERSION;
  config["compiler"] = LINREG_OPS_COMPILER;
  config["cuda_version"] = LINREG_OPS_CUDA_VERSION;  // empty without CUDA
  return config;
}

}  // namespace
}  // namespace linreg_ops

PYBIND11_MODULE(_kernels, m) {
  using namespace py::literals;
  namespace lo = linreg_ops;
  m.def("loss_and_grad", &lo::LossAndGrad, "x"_a.noconvert(), "w"_a.noconvert(),
        "y"_a.noconvert() = py::none(), py::kw_only(), "intercept"_a = false,
        "sample_weight"_a.noconvert() = py::none(), "loss_per_target"_a = false,
        "num_threads"_a = py::none(), "isa"_a = py::none());
  m.def("gradient_descent", &lo::GradientDescent, "x"_a.noconvert(), "w"_a.noconvert(),
        "y"_a.noconvert(), "learning_rate"_a, "num_steps"_a, py::kw_only(), "intercept"_a = false,
        "sample_weight"_a.noconvert() = py::none(), "momentum"_a = 0.0,
        "num_threads"_a = py::none(), "isa"_a = py::none());
  m.def("active_isa", &lo::ActiveIsa);
  m.def("isas", &lo::Isas);
  m.def("plan", &lo::Plan, "n"_a, "d"_a, "k"_a, "dtype"_a, "w_dtype"_a, "intercept"_a, "descent"_a,
        "num_threads"_a, "isa"_a);
  m.def("routes", &lo::Routes);
  m.def("build_config", &lo::BuildConfig);
  lo::RegisterCuda(m);
}
