#include "host/gpu_memory.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "kernels/cuda/launch.h"

namespace linreg_ops {
namespace cuda {
namespace {

cudaStream_t ToStream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t ToEvent(void* event) { return static_cast<cudaEvent_t>(event); }

// The device's pool, of this library's own. The default one gives what is free back to the driver
// whenever somebody waits for the GPU, and the next call pays for mapping it again.
Status PoolOf(int ordinal, cudaMemPool_t* pool) {
  constexpr std::uint64_t kKept = 256 << 20;  // more than that goes back
  static std::mutex mutex;
  static auto* const pools = new std::map<int, cudaMemPool_t>;  // as long as the process
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = pools->find(ordinal); found != pools->end()) {
    *pool = found->second;
    return Status();
  }
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = ordinal;
  Status status = CheckCuda(cudaMemPoolCreate(pool, &properties), "creating a pool of GPU memory");
  if (!status.ok()) return status;
  std::uint64_t kept = kKept;
  const cudaError_t error = cudaMemPoolSetAttribute(*pool, cudaMemPoolAttrReleaseThreshold, &kept);
  if (error == cudaSuccess) {
    pools->emplace(ordinal, *pool);
  } else {
    cudaMemPoolDestroy(*pool);
  }
  return CheckCuda(error, "setting up a pool of GPU memory");
}

Status Copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, void* stream,
            const char* what) {
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, ToStream(stream));
  return CheckCuda(error == cudaSuccess ? cudaStreamSynchronize(ToStream(stream)) : error, what);
}

}  // namespace

Status CurrentOrdinal(int* ordinal) {
  return CheckCuda(cudaGetDevice(ordinal), "finding the current CUDA device");
}

Status MakeCurrent(int ordinal) {
  return CheckCuda(cudaSetDevice(ordinal), "choosing the CUDA device");
}

Status Allocate(int ordinal, std::size_t bytes, void* stream, void** data) {
  cudaMemPool_t pool = nullptr;
  Status status = PoolOf(ordinal, &pool);
  if (!status.ok()) return status;
  return CheckCuda(cudaMallocFromPoolAsync(data, bytes, pool, ToStream(stream)),
                   "allocating GPU memory");
}

void Free(int ordinal, void* data, void* stream) {
  int previous = ordinal;  // the null stream is the current device's
  cudaGetDevice(&previous);
  if (previous != ordinal) cudaSetDevice(ordinal);
  // cudaFree alone waits for nothing where the memory came from a pool.
  if (cudaFreeAsync(data, ToStream(stream)) != cudaSuccess) {
    cudaDeviceSynchronize();
    cudaFree(data);
    cudaGetLastError();
  }
  if (previous != ordinal) cudaSetDevice(previous);
}

Status CopyToDevice(void* to, const void* from, std::size_t bytes, void* stream) {
  return Copy(to, from, bytes, cudaMemcpyHostToDevice, stream, "copying to the GPU");
}

Status CopyFromDevice(void* to, const void* from, std::size_t bytes, void* stream) {
  return Copy(to, from, bytes, cudaMemcpyDeviceToHost, stream, "copying from the GPU");
}

Status Wait(void* stream) {
  return CheckCuda(cudaStreamSynchronize(ToStream(stream)), "waiting for the stream");
}

Status Order(void* first, void* second) {
  Event event;
  Status status = Record(first, &event);
  if (!status.ok()) return status;
  return CheckCuda(cudaStreamWaitEvent(ToStream(second), ToEvent(event.get()), 0),
                   "ordering two streams");
}

bool IsCapturing(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(ToStream(stream), &status) != cudaSuccess) cudaGetLastError();
  return status != cudaStreamCaptureStatusNone;
}

void DestroyEvent::operator()(void* event) const { cudaEventDestroy(ToEvent(event)); }

Status Record(void* stream, Event* event) {
  cudaEvent_t created = nullptr;
  Status status =
      CheckCuda(cudaEventCreateWithFlags(&created, cudaEventDisableTiming), "creating an event");
  if (!status.ok()) return status;
  event->reset(created);
  return CheckCuda(cudaEventRecord(created, ToStream(stream)), "recording an event");
}

bool HasPassed(const Event& event) {
  const cudaError_t error = cudaEventQuery(ToEvent(event.get()));
  if (error != cudaSuccess) cudaGetLastError();  // "not ready" is one too
  return error != cudaErrorNotReady;
}

}  // namespace cuda
}  // namespace linreg_ops
