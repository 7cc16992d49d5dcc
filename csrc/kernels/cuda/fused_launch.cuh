// Picks the fused kernel's instance for a plan. Included by the translation unit of each type.
#pragma once

#include "kernels/cuda/fused.cuh"
#include "kernels/cuda/fused.h"
#include "kernels/cuda/launch.h"

namespace linreg_ops {
namespace cuda {

template <typename T>
Status LaunchFused(const FusedArgs& args, bool cooperative, cudaStream_t stream) {
  using Kernel = void (*)(FusedArgs);
  struct Row {
    Path path;
    int targets;
    Kernel kernel;
    const char* name;
  };
  static const Row kTable[] = {
      {Path::kRows, 1, FusedKernel<T, Path::kRows, 1>, "the fused kernel (rows, 1 target)"},
      {Path::kRows, 2, FusedKernel<T, Path::kRows, 2>, "the fused kernel (rows, 2 targets)"},
      {Path::kRows, 4, FusedKernel<T, Path::kRows, 4>, "the fused kernel (rows, 4 targets)"},
      {Path::kColumns, 1, FusedKernel<T, Path::kColumns, 1>,
       "the fused kernel (columns, 1 target)"},
      {Path::kColumns, 2, FusedKernel<T, Path::kColumns, 2>,
       "the fused kernel (columns, 2 targets)"},
      {Path::kColumns, 4, FusedKernel<T, Path::kColumns, 4>,
       "the fused kernel (columns, 4 targets)"},
      {Path::kColumns, 8, FusedKernel<T, Path::kColumns, 8>,
       "the fused kernel (columns, 8 targets)"},
      {Path::kColumns, 16, FusedKernel<T, Path::kColumns, 16>,
       "the fused kernel (columns, 16 targets)"},
  };
  for (const Row& row : kTable) {
    if (row.path != args.plan.path || row.targets != args.plan.targets) continue;
    return Launch({row.name, dim3(static_cast<unsigned>(args.plan.blocks)), kThreads,
                   static_cast<std::size_t>(args.plan.shared_bytes), cooperative, stream},
                  row.kernel, args);
  }
  return {Status::Code::kInternal, "no fused kernel for this plan"};
}

}  // namespace cuda
}  // namespace linreg_ops
