// The CUDA runtime that the compiled host code calls: streams whose work is done when somebody
// waits for it, graphs, events, memory, and kernels that run from their PTX.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "block.h"
#include "machine.h"
#include "ptx.h"
#include "report.h"

// Work in order: of the default stream, done at once; of any other, when somebody waits for it, so
// that who forgets to wait finds nothing done. A graph is such work too.
struct CUstream_st {
  bool recording = false;
  std::vector<std::function<void()>> work;
  std::size_t done = 0;  // how much of it
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::size_t position = 0;
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace ptx_runner {
namespace {

struct Symbols {
  std::map<const void*, std::string> names;                  // of the host's stubs
  std::map<std::pair<const void*, int>, int> shared_limits;  // of a kernel on a device
  std::map<std::string, std::map<std::string, std::unique_ptr<Kernel>>> folders;
};
Symbols& symbols() {
  static auto* instance = new Symbols;
  return *instance;
}

const Kernel& FindKernel(const void* stub) {
  const std::string& name = symbols().names.at(stub);
  const std::string& folder = machine().ptx_folder;
  auto& kernels = symbols().folders[folder];
  if (kernels.empty()) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".ptx") kernels.merge(ReadPtx(entry.path().string()));
    }
  }
  const auto found = kernels.find(name);
  if (found == kernels.end()) Fail("no PTX for %s in %s", name.c_str(), folder.c_str());
  return *found->second;
}

void RunGrid(Launch launch) {
  Machine& m = machine();
  ++m.launches;
  std::mt19937_64 rng(m.seed);
  const unsigned count = launch.grid.x * launch.grid.y * launch.grid.z;
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) order[i] = count - 1 - i;
  if (m.seed != 0) std::shuffle(order.begin(), order.end(), rng);
  if (!launch.cooperative) {
    for (const unsigned index : order) {
      if (m.first_block_only && index != 0) continue;
      Block block(launch, index, m.counting && index == 0);
      while (!block.done()) {
        if (!block.Advance(rng)) block.FailAsStuck();
      }
      block.Finish();
    }
    return;
  }
  std::vector<std::unique_ptr<Block>> blocks(count);
  for (unsigned i = 0; i < count; ++i) {
    blocks[i] = std::make_unique<Block>(launch, i, m.counting && i == 0);
  }
  constexpr long kForever = 100'000'000;  // a grid barrier that some block never reaches
  for (long rounds = 0;; ++rounds) {
    bool any = false, all_done = true;
    for (const unsigned index : order) {
      if (blocks[index]->done()) continue;
      all_done = false;
      any |= blocks[index]->Advance(rng);
    }
    if (all_done) break;
    if (!any || rounds > kForever) blocks[0]->FailAsStuck();
  }
  for (const auto& block : blocks) block->Finish();
}

// Null for the default stream, whose other handles are 1 and 2.
CUstream_st* Named(cudaStream_t stream) {
  return reinterpret_cast<std::uintptr_t>(stream) <= 2 ? nullptr : stream;
}
void Enqueue(cudaStream_t stream, std::function<void()> work) {
  if (Named(stream) == nullptr) {
    work();
  } else {
    stream->work.push_back(std::move(work));
  }
}
void RunUntil(CUstream_st* stream, std::size_t position) {
  while (stream->done < position) {
    const auto work = std::move(stream->work[stream->done++]);  // which may enqueue
    work();
  }
}

// The injected error, if this is the call that fails.
cudaError_t Injected() {
  Machine& m = machine();
  if (m.calls_until_error < 0 || m.calls_until_error-- > 0) return cudaSuccess;
  return static_cast<cudaError_t>(m.error);
}

}  // namespace
}  // namespace ptx_runner

using ptx_runner::machine;  // NOLINT

#define RUNTIME extern "C" __attribute__((visibility("default")))
#define MAY_FAIL \
  if (const cudaError_t injected = ptx_runner::Injected(); injected != cudaSuccess) return injected

RUNTIME void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
RUNTIME void __cudaRegisterFatBinaryEnd(void**) {}
RUNTIME void __cudaUnregisterFatBinary(void**) {}
RUNTIME char __cudaInitModule(void**) { return 1; }
RUNTIME void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*,
                                    uint3*, dim3*, dim3*, int*) {
  ptx_runner::symbols().names[stub] = name;
}
// What only a launch by <<<>>> calls.
RUNTIME unsigned __cudaPushCallConfiguration(dim3, dim3, std::size_t, CUstream_st*) {
  ptx_runner::Fail("a launch that is not checked");
}
RUNTIME cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) {
  ptx_runner::Fail("a launch that is not checked");
}
RUNTIME cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaSuccess; }
RUNTIME cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t,
                                       cudaStream_t) {
  ptx_runner::Fail("a launch that is not checked");
}

RUNTIME cudaError_t cudaGetDevice(int* device) {
  MAY_FAIL;
  *device = machine().ordinal;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaSetDevice(int device) {
  machine().ordinal = device;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaGetLastError() { return cudaSuccess; }
RUNTIME const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
RUNTIME const char* cudaGetErrorString(cudaError_t) { return "an error of the PTX runner"; }
RUNTIME cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  MAY_FAIL;
  ++machine().attribute_calls;
  const ptx_runner::Machine& m = machine();
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = m.multiprocessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = m.compute_capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = m.compute_capability % 10;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = m.shared_per_block;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = m.shared_per_multiprocessor;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *value = m.shared_reserved;
      break;
    case cudaDevAttrL2CacheSize:
      *value = m.l2_bytes;
      break;
    default:
      *value = 1;
  }
  return cudaSuccess;
}
RUNTIME cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* stub) {
  MAY_FAIL;
  ++machine().attribute_calls;
  *attributes = {};
  const std::string& folder = machine().ptx_folder;
  attributes->ptxVersion = std::stoi(folder.substr(folder.find_last_of('_') + 1));
  attributes->maxThreadsPerBlock = ptx_runner::FindKernel(stub).max_threads;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
  MAY_FAIL;
  ++machine().attribute_calls;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > machine().shared_per_block) return cudaErrorInvalidValue;
  ptx_runner::symbols().shared_limits[{stub, machine().ordinal}] = value;
  const auto meanwhile = std::exchange(machine().after_asking_for_shared, {});
  if (meanwhile) meanwhile();
  return cudaSuccess;
}

RUNTIME cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub,
                                        void** arguments) {
  MAY_FAIL;
  const dim3 &grid = config->gridDim, &block = config->blockDim;
  bool cooperative = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    cooperative |= config->attrs[i].id == cudaLaunchAttributeCooperative &&
                   config->attrs[i].val.cooperative != 0;
  }
  const ptx_runner::Kernel& kernel = ptx_runner::FindKernel(stub);
  constexpr unsigned kMostBlocks = 65535, kMostThreads = 1024;
  constexpr int kWithoutOptIn = 48 << 10;
  const auto& limits = ptx_runner::symbols().shared_limits;
  const auto found = limits.find({stub, machine().ordinal});
  const int limit = found != limits.end() ? found->second : kWithoutOptIn;
  const unsigned most_threads =
      kernel.max_threads ? static_cast<unsigned>(kernel.max_threads) : kMostThreads;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > kMostBlocks || grid.z > kMostBlocks ||
      block.x == 0 || block.x > most_threads || block.y != 1 || block.z != 1 ||
      config->dynamicSmemBytes > static_cast<std::size_t>(limit)) {
    return cudaErrorInvalidValue;
  }
  if (cooperative && grid.x > machine().resident_blocks) return cudaErrorCooperativeLaunchTooLarge;
  ptx_runner::Launch launch;
  launch.kernel = &kernel;
  launch.grid = grid;
  launch.block = block;
  launch.shared_bytes = config->dynamicSmemBytes;
  launch.cooperative = cooperative;
  launch.parameters.resize(static_cast<std::size_t>(kernel.parameter_bytes));
  for (std::size_t i = 0; i < kernel.parameters.size(); ++i) {
    const ptx_runner::Parameter& p = kernel.parameters[i];
    std::memcpy(launch.parameters.data() + p.offset, arguments[i],
                static_cast<std::size_t>(p.bytes));
  }
  ptx_runner::Enqueue(config->stream, [launch] { ptx_runner::RunGrid(launch); });
  return cudaSuccess;
}

RUNTIME cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  static int any;
  *pool = reinterpret_cast<cudaMemPool_t>(&any);
  return cudaSuccess;
}
RUNTIME cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
RUNTIME cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
RUNTIME cudaError_t cudaMallocFromPoolAsync(void** p, std::size_t bytes, cudaMemPool_t,
                                            cudaStream_t) {
  *p = ptx_runner::global_memory().Take(bytes);
  return cudaSuccess;
}
RUNTIME cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t) {
  *p = ptx_runner::global_memory().Take(bytes);
  return cudaSuccess;
}
RUNTIME cudaError_t cudaFree(void* p) {
  ptx_runner::global_memory().GiveBack(p);
  return cudaSuccess;
}
RUNTIME cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  ptx_runner::Enqueue(stream, [p] { ptx_runner::global_memory().GiveBack(p); });
  return cudaSuccess;
}
RUNTIME cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  MAY_FAIL;
  ptx_runner::Enqueue(stream, [=] {
    if (!ptx_runner::global_memory().Holds(reinterpret_cast<std::uintptr_t>(p), bytes)) {
      ptx_runner::Fail("memory set out of bounds");
    }
    std::memset(p, value, bytes);
  });
  return cudaSuccess;
}
RUNTIME cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                    cudaStream_t stream) {
  MAY_FAIL;
  ptx_runner::Enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

RUNTIME cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  MAY_FAIL;
  *stream = new CUstream_st;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (CUstream_st* named = ptx_runner::Named(stream)) {
    ptx_runner::RunUntil(named, named->work.size());
  }
  return cudaSuccess;
}
RUNTIME cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
RUNTIME cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream->recording) ptx_runner::RunUntil(stream, stream->work.size());
  delete stream;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const CUstream_st* named = ptx_runner::Named(stream);
  *status = named != nullptr && named->recording ? cudaStreamCaptureStatusActive
                                                 : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  MAY_FAIL;
  stream->recording = true;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  MAY_FAIL;
  *graph = new CUgraph_st{std::move(stream->work)};
  stream->work.clear();
  stream->recording = false;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph,
                                         unsigned long long) {
  MAY_FAIL;
  *instance = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
RUNTIME cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
  MAY_FAIL;
  ++machine().graph_launches;
  ptx_runner::Enqueue(stream, [work = instance->work] {
    for (const auto& each : work) each();
  });
  return cudaSuccess;
}
RUNTIME cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
  delete instance;
  return cudaSuccess;
}

RUNTIME cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  MAY_FAIL;
  ++machine().events;
  *event = new CUevent_st;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  MAY_FAIL;
  event->stream = ptx_runner::Named(stream);
  event->position = event->stream ? event->stream->work.size() : 0;
  return cudaSuccess;
}
RUNTIME cudaError_t cudaEventQuery(cudaEvent_t event) {
  return event->stream != nullptr && event->stream->done < event->position ? cudaErrorNotReady
                                                                           : cudaSuccess;
}
RUNTIME cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  MAY_FAIL;
  if (event->stream == nullptr) return cudaSuccess;
  ptx_runner::Enqueue(stream,
                      [copy = *event] { ptx_runner::RunUntil(copy.stream, copy.position); });
  return cudaSuccess;
}
RUNTIME cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
