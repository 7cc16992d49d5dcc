// Launches that are recorded once, as a CUDA graph, and replayed: one call of the driver for all.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"

namespace linreg_ops {
namespace cuda {

class RecordedLaunches {
 public:
  RecordedLaunches() = default;
  RecordedLaunches(const RecordedLaunches&) = delete;
  RecordedLaunches& operator=(const RecordedLaunches&) = delete;
  // The driver keeps a graph that still runs until it has run.
  ~RecordedLaunches() {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
  }

  // Whether the caller's stream executes what it is given. One that is itself being recorded takes
  // launches alone.
  static bool CanReplayOn(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(stream, &status) != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
    return status == cudaStreamCaptureStatusNone;
  }

  // `enqueue(stream)` launches, and returns a Status.
  template <typename Enqueue>
  Status Record(const Enqueue& enqueue) {
    cudaStream_t stream = nullptr;
    Status status = CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                              "creating a stream to record launches on");
    if (!status.ok()) return status;
    // This thread only: others may allocate meanwhile.
    status = CheckCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                       "recording launches");
    if (status.ok()) {
      status = enqueue(stream);
      cudaGraph_t recorded = nullptr;
      const Status ended = CheckCuda(cudaStreamEndCapture(stream, &recorded), "recording launches");
      if (status.ok()) status = ended;
      if (status.ok()) {
        status = CheckCuda(cudaGraphInstantiate(&graph_, recorded, 0), "making a CUDA graph");
      }
      if (recorded != nullptr) cudaGraphDestroy(recorded);
    }
    cudaStreamDestroy(stream);
    return status;
  }

  Status Replay(cudaStream_t stream) const {
    return CheckCuda(cudaGraphLaunch(graph_, stream), "launching a CUDA graph");
  }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace cuda
}  // namespace linreg_ops
