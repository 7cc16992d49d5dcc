#include "python/gram.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "host/heap_workspace.h"
#include "host/thread_pool.h"
#include "kernels/gram.h"
#include "kernels/sizes.h"
#include "python/throw.h"
#include "python/without_gil.h"

namespace py = pybind11;

namespace linreg_ops {
namespace {

template <class T>
using Exact = py::array_t<T, py::array::c_style>;

// The half of linreg_ops/_gram.py, which has checked what the user gave.
class State {
 public:
  State(std::int64_t d, std::int64_t k, std::int64_t folds, Exact<double> sums,
        Exact<double> pending, Exact<std::int64_t> rows, Exact<double> scale, Exact<double> offset)
      : sums_(std::move(sums)),
        pending_(std::move(pending)),
        rows_(std::move(rows)),
        scale_(std::move(scale)),
        offset_(std::move(offset)) {
    state_.shape = {d, k, folds};
    Throw(ValidateGram(state_.shape));
    const bool fit = sums_.size() == folds * 2 * GramSumsSize(d, k) &&
                     pending_.size() == folds * kGramBlockRows * state_.shape.width() &&
                     rows_.size() == folds && scale_.size() == d + k && offset_.size() == d + k;
    if (!fit) throw py::value_error("the state's arrays do not fit its shape");
    state_.sums = sums_.mutable_data();
    state_.pending = pending_.mutable_data();
    state_.rows = rows_.mutable_data();
    for (std::int64_t f = 0; f < folds; ++f) {
      if (state_.rows[f] < 0) throw py::value_error("rows must not be negative");
    }
    state_.scale = scale_.data();
    state_.offset = offset_.data();
  }

  const GramState& get() const { return state_; }

 private:
  Exact<double> sums_, pending_;
  Exact<std::int64_t> rows_;
  Exact<double> scale_, offset_;
  GramState state_;
};

// Memory of so many bytes, or MemoryError.
class Workspace {
 public:
  explicit Workspace(std::int64_t bytes) : bytes_(bytes), data_(memory_(bytes)) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  void* data() { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t bytes_;
  HeapWorkspace memory_;
  void* data_;
};

DType TypeNamed(const std::string& name) {
  for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    if (name == NameOf(type)) return type;
  }
  throw py::type_error("there is no kernel for " + name);
}

DType TypeOf(const std::optional<py::array>& a) {
  return a ? TypeNamed(py::str(a->dtype().attr("name"))) : DType::kFloat64;
}

void CheckSize(const std::optional<py::array>& a, std::int64_t size, const char* name) {
  if (!a || (a->size() == size && (a->flags() & py::array::c_style) != 0)) return;
  throw py::value_error(std::string(name) + " does not fit the state, or is not contiguous");
}

int ThreadsOf(std::optional<int> num_threads) {
  return num_threads.value_or(AvailableProcessors());
}

void Update(const State& state, const py::array& x, const std::optional<py::array>& y,
            const std::optional<py::array>& sample_weight,
            const std::optional<Exact<std::int64_t>>& fold, std::optional<int> num_threads,
            const std::optional<std::string>& isa) {
  const GramState& s = state.get();
  if (x.ndim() != 2) throw py::value_error("x must be [n, d]");
  GramBatch batch;
  batch.n = x.shape(0);
  CheckSize(x, SaturatingProduct({batch.n, s.shape.d}), "x");
  CheckSize(y, SaturatingProduct({batch.n, s.shape.k}), "y");
  CheckSize(sample_weight, batch.n, "sample_weight");
  if (fold) CheckSize(*fold, batch.n, "fold");
  batch.x_type = TypeOf(x);
  batch.y_type = TypeOf(y);
  batch.weight_type = TypeOf(sample_weight);
  batch.x = x.data();
  if (y) batch.y = y->data();
  if (sample_weight) batch.sample_weight = sample_weight->data();
  if (fold) batch.fold = fold->data();
  const int threads = ThreadsOf(num_threads);
  const char* const isa_name = isa ? isa->c_str() : nullptr;
  Workspace workspace(cpu::GramUpdateWorkspaceBytes(s, batch.n, threads));
  const std::int64_t work = SaturatingProduct({batch.n, s.shape.d + 1, s.shape.width()});
  Throw(RunWithoutGil(work, [&](const Cancellable& cancellable) {
    return cpu::GramUpdate(s, batch, cancellable, PoolThreads(threads), workspace.data(),
                           workspace.bytes(), isa_name);
  }));
}

void Merge(const State& state, const State& other, std::optional<int> num_threads,
           const std::optional<std::string>& isa) {
  const GramState& s = state.get();
  const int threads = ThreadsOf(num_threads);
  Workspace workspace(cpu::GramUpdateWorkspaceBytes(s, kGramBlockRows, threads));
  Throw(cpu::GramMerge(s, other.get(), PoolThreads(threads), workspace.data(), workspace.bytes(),
                       isa ? isa->c_str() : nullptr));
}

py::tuple Sum(const State& state, const std::vector<std::int64_t>& folds,
              std::optional<int> num_threads, const std::optional<std::string>& isa) {
  const GramState& s = state.get();
  const py::ssize_t d = s.shape.d, k = s.shape.k;
  Exact<double> xx({d, d}), xy({d, k}), yy(k), x_sum(d), y_sum(k);
  double weight = 0;
  const GramResult result = {xx.mutable_data(),    xy.mutable_data(),    yy.mutable_data(),
                             x_sum.mutable_data(), y_sum.mutable_data(), &weight};
  const int threads = ThreadsOf(num_threads);
  Workspace workspace(cpu::GramSumWorkspaceBytes(s, threads));
  Throw(cpu::GramSum(s, folds.data(), static_cast<std::int64_t>(folds.size()), result,
                     PoolThreads(threads), workspace.data(), workspace.bytes(),
                     isa ? isa->c_str() : nullptr));
  return py::make_tuple(xx, xy, yy, x_sum, y_sum, weight);
}

std::int64_t SumsSize(std::int64_t d, std::int64_t k, std::int64_t folds) {
  Throw(ValidateGram({d, k, folds}));
  return GramSumsSize(d, k);
}

}  // namespace

void RegisterGram(py::module_& m) {
  using namespace py::literals;
  m.attr("GRAM_BLOCK_ROWS") = kGramBlockRows;
  m.def("gram_sums_size", &SumsSize, "d"_a, "k"_a, "folds"_a);
  py::class_<State>(m, "GramArrays")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, Exact<double>, Exact<double>,
                    Exact<std::int64_t>, Exact<double>, Exact<double>>(),
           "d"_a, "k"_a, "folds"_a, "sums"_a.noconvert(), "pending"_a.noconvert(),
           "rows"_a.noconvert(), "scale"_a.noconvert(), "offset"_a.noconvert())
      .def("update", &Update, "x"_a.noconvert(), "y"_a.noconvert(), "sample_weight"_a.noconvert(),
           "fold"_a.noconvert(), "num_threads"_a, "isa"_a)
      .def("merge", &Merge, "other"_a, "num_threads"_a, "isa"_a)
      .def("sum", &Sum, "folds"_a, "num_threads"_a, "isa"_a);
}

}  // namespace linreg_ops
