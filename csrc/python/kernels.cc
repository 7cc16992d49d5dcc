// linreg_ops._kernels: the kernels on NumPy arrays. Checks and forwarding only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host/batch.h"
#include "host/heap_workspace.h"
#include "host/shape_rules.h"
#include "host/thread_pool.h"
#include "kernels/l2_loss_grad.h"
#include "kernels/sizes.h"
#include "python/cuda_arrays.h"
#include "python/gram.h"
#include "python/throw.h"
#include "python/without_gil.h"

namespace py = pybind11;

namespace linreg_ops {
namespace {

using Array = py::array;
using OptionalArray = std::optional<py::array>;

std::string DescribeShape(const Array& a) { return py::str(a.attr("shape")); }

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
  Batch batch;  // of one
  py::dtype w_dtype;
  std::vector<py::ssize_t> w_shape;
  const Data& data() const { return batch.first; }
};

ArrayShape ShapeOf(const Array& a) { return {a.shape(), a.ndim()}; }

Problem MakeProblem(const Array& x, const Array& w, const OptionalArray& y, bool intercept,
                    const OptionalArray& sample_weight) {
  Problem p{{}, w.dtype(), {w.shape(), w.shape() + w.ndim()}};
  Data& data = p.batch.first;
  data.x_type = TypeOf(x.dtype(), "x");
  data.w_type = TypeOf(w.dtype(), "w");
  if (const Status types = ValidateTypes(data.x_type, data.w_type); !types.ok()) {
    throw py::type_error(types.message());
  }
  for (const auto& [array, name] :
       {std::pair(&y, "y"), std::pair(&sample_weight, "sample_weight")}) {
    if (*array && TypeOf((*array)->dtype(), name) != data.w_type) {
      throw py::type_error(std::string(name) + " must have w's dtype " + NameOf(data.w_type) +
                           ", got " + std::string(py::str((*array)->dtype())));
    }
  }
  ProblemShapes shapes;
  shapes.x = ShapeOf(x);
  shapes.w = ShapeOf(w);
  if (y) shapes.y = ShapeOf(*y);
  if (sample_weight) shapes.sample_weight = ShapeOf(*sample_weight);
  shapes.intercept = intercept;
  ProblemSizes sizes;
  Throw(CheckShapes(shapes, &sizes));
  data.shape = sizes.shape;
  data.x = CheckedData(x, "x");
  data.w = CheckedData(w, "w");
  if (y) data.y = CheckedData(*y, "y");
  if (sample_weight) data.sample_weight = CheckedData(*sample_weight, "sample_weight");
  return p;
}

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

template <typename Output>
Status Run(const Problem& p, int threads, const std::optional<std::string>& isa,
           const Output& output) {
  return cpu::RunBatch(
      p.batch, PoolThreads(threads), isa ? isa->c_str() : nullptr,
      [&](std::int64_t) { return output; }, HeapWorkspace());
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
  Throw(RunWithoutGil(Work(p.data().shape, 1), [&](const Cancellable& cancellable) {
    out.cancelled = cancellable.cancelled;
    out.cancelled_context = cancellable.cancelled_context;
    return Run(p, count, isa, out);
  }));
  return py::make_tuple(per_column ? py::object(loss) : Scalar(loss), grad);
}

// Ctrl-C's exception, which is set, as one that carries what is finished. Another handler's stays.
void KeepSteps(std::int64_t steps, const Array& w, const Array& losses) {
  if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) == 0) return;
  const py::error_already_set interrupt;  // takes it; what follows runs Python code
  const py::object finished = losses[py::slice(0, steps, 1)].attr("copy")();
  const py::object kept =
      py::module_::import("linreg_ops.training").attr("TrainingInterrupted")(steps, w, finished);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(kept.ptr())), kept.ptr());
}

py::tuple GradientDescent(
    const Array& x, const Array& w, const OptionalArray& y,
    const py::array_t<double, py::array::c_style | py::array::forcecast>& rate,
    std::int64_t num_steps, bool intercept, const OptionalArray& sample_weight, double momentum,
    std::optional<int> num_threads, const std::optional<std::string>& isa) {
  const Problem p = MakeProblem(x, w, y, intercept, sample_weight);
  const int count = CheckedThreads(num_threads);
  Throw(CheckRates({rate.shape(), rate.ndim()}, num_steps));
  Array new_w(p.w_dtype, p.w_shape);
  Array losses(p.w_dtype, std::vector<py::ssize_t>{num_steps + 1});
  Descent descent;
  descent.num_steps = num_steps;
  descent.rates = rate.data();
  descent.num_rates = rate.ndim() == 0 ? 1 : num_steps;
  descent.momentum = momentum;
  descent.w = new_w.mutable_data();
  descent.losses = losses.mutable_data();
  std::int64_t steps_kept = -1;
  descent.steps_kept = &steps_kept;
  const Status status =
      RunWithoutGil(Work(p.data().shape, num_steps + 1), [&](const Cancellable& cancellable) {
        descent.cancelled = cancellable.cancelled;
        descent.cancelled_context = cancellable.cancelled_context;
        return Run(p, count, isa, descent);
      });
  if (steps_kept >= 0) KeepSteps(steps_kept, new_w, losses);
  Throw(status);
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
  sizes.x = sizes.w = sizes.y = &sizes;  // there are arrays; they are not read
  cpu::Call call;
  Throw(cpu::Call::Make(descent ? cpu::Call::Kind::kDescent : cpu::Call::Kind::kLossGrad, sizes,
                        CheckedThreads(num_threads), isa ? isa->c_str() : nullptr, &call));
  const cpu::PlanInfo info = call.Explain();
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

// The pairs of x's and w's dtypes that have kernels.
py::list DTypePairs() {
  py::list pairs;
  for (const DTypePair& pair : kDTypePairs) {
    pairs.append(py::make_tuple(NameOf(pair.x), NameOf(pair.w)));
  }
  return pairs;
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
  m.def("dtype_pairs", &lo::DTypePairs);
  m.def("build_config", &lo::BuildConfig);
  lo::RegisterGram(m);
  lo::RegisterCuda(m);
}
