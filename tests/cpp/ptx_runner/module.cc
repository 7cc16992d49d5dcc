// The compiled kernels behind the project's own binding, and the machine's knobs and counters.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>

#include "machine.h"
#include "python/cuda_arrays.h"
#include "report.h"

namespace py = pybind11;
using ptx_runner::Machine;
using ptx_runner::machine;

PYBIND11_MODULE(_ptx_runner, m) {
  linreg_ops::RegisterCuda(m);
  py::class_<Machine>(m, "Machine")
      .def_readwrite("ordinal", &Machine::ordinal)
      .def_readwrite("multiprocessors", &Machine::multiprocessors)
      .def_readwrite("compute_capability", &Machine::compute_capability)
      .def_readwrite("shared_per_block", &Machine::shared_per_block)
      .def_readwrite("shared_per_multiprocessor", &Machine::shared_per_multiprocessor)
      .def_readwrite("l2_bytes", &Machine::l2_bytes)
      .def_readwrite("ptx_folder", &Machine::ptx_folder)
      .def_readwrite("seed", &Machine::seed)
      .def_readwrite("first_block_only", &Machine::first_block_only)
      .def_readwrite("attribute_calls", &Machine::attribute_calls)
      .def_readwrite("events", &Machine::events)
      .def_readwrite("launches", &Machine::launches)
      .def_readwrite("counting", &Machine::counting)
      .def_readwrite("instructions", &Machine::instructions)
      .def_readwrite("global_bytes", &Machine::global_bytes)
      .def_readwrite("blocks", &Machine::blocks);
  m.def("machine", &machine, py::return_value_policy::reference);
  m.def("take_faults", [] {
    const ptx_runner::Faults taken = ptx_runner::faults();
    ptx_runner::faults() = {};
    return py::make_tuple(taken.count, taken.first);
  });
  m.def("lend", [](std::uintptr_t address, std::size_t bytes) {
    ptx_runner::global_memory().Lend(reinterpret_cast<void*>(address), bytes);
  });
  m.def("bytes_given_out", [] { return ptx_runner::global_memory().given_out(); });
  m.def("new_stream", [] {
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    return reinterpret_cast<std::uintptr_t>(stream);
  });
  m.def("destroy_stream",
        [](std::uintptr_t stream) { cudaStreamDestroy(reinterpret_cast<cudaStream_t>(stream)); });
}
