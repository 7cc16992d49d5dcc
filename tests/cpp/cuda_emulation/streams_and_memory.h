// The part of the emulated runtime that is about streams, events, graphs and memory. Included by
// cuda_runtime.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <utility>
#include <vector>

// Work in order: of the default stream, done at once; of any other, when somebody waits for it, so
// that who forgets to wait finds nothing done. A graph is such work too.
struct CUstream_st {
  bool recording = false;
  std::vector<std::function<void()>> work;
  std::size_t done = 0;  // how much of it
};
using cudaStream_t = CUstream_st*;
using cudaGraph_t = CUstream_st*;
using cudaGraphExec_t = CUstream_st*;

struct CUevent_st {
  cudaStream_t stream = nullptr;
  std::size_t position = 0;
};
using cudaEvent_t = CUevent_st*;

namespace cuda_emulation {

// Null for the default stream, whose other handles are 1 and 2.
inline cudaStream_t Named(cudaStream_t stream) {
  return reinterpret_cast<std::uintptr_t>(stream) <= 2 ? nullptr : stream;
}

inline void Enqueue(cudaStream_t stream, std::function<void()> work) {
  if (Named(stream) == nullptr) {
    work();
  } else {
    stream->work.push_back(std::move(work));
  }
}

inline void RunUntil(cudaStream_t stream, std::size_t position) {
  while (stream->done < position) {
    const auto work = std::move(stream->work[stream->done++]);  // which may enqueue
    work();
  }
}

// Device memory. What is given back is soon given out again, as by a pool.
struct Memory {
  std::map<void*, std::size_t> bytes;
  std::vector<void*> free;

  void* Take(std::size_t wanted) {
    constexpr std::size_t kUnit = 256;
    wanted = (wanted + kUnit) / kUnit * kUnit;  // never 0
    void* taken = nullptr;
    for (std::size_t i = free.size(); taken == nullptr && i-- > 0;) {
      if (bytes.at(free[i]) != wanted) continue;
      taken = free[i];
      free.erase(free.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (taken == nullptr) taken = std::aligned_alloc(kUnit, wanted);
    bytes[taken] = wanted;
    std::memset(taken, 0xff, wanted);  // NaN, for a kernel that reads what nobody wrote
    return taken;
  }
  void GiveBack(void* p) {
    if (bytes.count(p) == 0) Fail("memory given back that was not taken");
    for (void* other : free) {
      if (p == other) Fail("memory given back twice");
    }
    std::memset(p, 0xff, bytes.at(p));
    free.push_back(p);
    constexpr std::size_t kMost = 64;
    if (free.size() <= kMost) return;
    std::free(free.front());
    bytes.erase(free.front());
    free.erase(free.begin());
  }
};
inline Memory& memory() {
  static auto* instance = new Memory;
  return *instance;
}

}  // namespace cuda_emulation

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;

inline cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t) {
  *p = cuda_emulation::memory().Take(bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
  cuda_emulation::memory().GiveBack(p);
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  cuda_emulation::Enqueue(stream, [p] { cudaFree(p); });
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  CUDA_EMULATION_MAY_FAIL;
  cuda_emulation::Enqueue(stream, [=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  cuda_emulation::Enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  CUDA_EMULATION_MAY_FAIL;
  *stream = new CUstream_st;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  stream = cuda_emulation::Named(stream);
  if (stream != nullptr) cuda_emulation::RunUntil(stream, stream->work.size());
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream->recording) cudaStreamSynchronize(stream);
  delete stream;
  return cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = cuda_emulation::Named(stream);
  if (event->stream != nullptr) event->position = event->stream->work.size();
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->stream == nullptr) return cudaSuccess;
  cuda_emulation::Enqueue(
      stream, [awaited = *event] { cuda_emulation::RunUntil(awaited.stream, awaited.position); });
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  stream = cuda_emulation::Named(stream);
  const bool recording = stream != nullptr && stream->recording;
  *status = recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  CUDA_EMULATION_MAY_FAIL;
  stream->recording = true;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  CUDA_EMULATION_MAY_FAIL;
  *graph = new CUstream_st{false, std::move(stream->work)};
  *stream = CUstream_st{};
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                        unsigned long long) {
  CUDA_EMULATION_MAY_FAIL;
  *exec = new CUstream_st(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  CUDA_EMULATION_MAY_FAIL;
  ++cuda_emulation::machine().graph_launches;
  cuda_emulation::Enqueue(stream, [all = graph->work] {
    for (const auto& work : all) work();
  });
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(graph); }

inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
