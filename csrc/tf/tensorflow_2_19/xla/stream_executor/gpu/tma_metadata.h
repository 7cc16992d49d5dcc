// In place of TensorFlow 2.19's own, which includes headers of LLVM that its wheel lacks. XLA's
// other headers only name the type, in a function that nothing here calls.
#ifndef XLA_STREAM_EXECUTOR_GPU_TMA_METADATA_H_
#define XLA_STREAM_EXECUTOR_GPU_TMA_METADATA_H_

namespace stream_executor {
namespace gpu {

class TmaDescriptor {};

}  // namespace gpu
}  // namespace stream_executor

#endif  // XLA_STREAM_EXECUTOR_GPU_TMA_METADATA_H_
