// GPU memory, copies and the order of streams, for hosts that link no CUDA runtime: the one there
// is belongs to the library of the CUDA kernels. A `stream` is a cudaStream_t of the current
// device.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cuda {

// The number of the calling thread's current device.
Status CurrentOrdinal(int* ordinal);
Status MakeCurrent(int ordinal);

// On the current device, whose number the caller has, behind the work on the stream.
Status Allocate(int ordinal, std::size_t bytes, void* stream, void** data);
// Gives it back behind the work on the stream; whatever device is current, it still is afterwards.
void Free(int ordinal, void* data, void* stream);

// Each has copied when it returns. An error may be of earlier work on the stream.
Status CopyToDevice(void* to, const void* from, std::size_t bytes, void* stream);
Status CopyFromDevice(void* to, const void* from, std::size_t bytes, void* stream);

Status Wait(void* stream);
// What is enqueued on `second` from now on follows what is on `first`.
Status Order(void* first, void* second);
// False where the stream cannot say.
bool IsCapturing(void* stream);

// A point in the work on a stream.
struct DestroyEvent {
  void operator()(void* event) const;
};
using Event = std::unique_ptr<void, DestroyEvent>;
Status Record(void* stream, Event* event);
bool HasPassed(const Event& event);  // or has failed

}  // namespace cuda
}  // namespace linreg_ops
