// Picks the fused kernel's instance for a plan. Included by the translation unit of each type.
#pragma once

#include "kernels/cuda/fused.cuh"
#include "kernels/cuda/fused.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/narrow_pass.cuh"
#include "kernels/cuda/rows_pass.cuh"

namespace linreg_ops {
namespace cuda {

// The instance with as many vectors a lane as the plan has, from C on.
template <typename T, int K, int E, int C = 1>
Status LaunchVariant(const FusedArgs& args, const LaunchConfig& config) {
  constexpr DType kType = Element<T>::kType;
  if constexpr (C > MostVectors(kType, K, E)) {
    return {Status::Code::kInternal, "no fused kernel for this plan"};
  } else {
    if constexpr (IsInstance(kType, {K, E, C})) {
      if (args.plan.variant.vectors == C) {
        return Launch(config, FusedKernel<RowsPass<T, K, E, C>>, args);
      }
    }
    return LaunchVariant<T, K, E, C + 1>(args, config);
  }
}

template <typename T, int K>
Status LaunchForTargets(const FusedArgs& args, const LaunchConfig& config) {
  constexpr DType kType = Element<T>::kType;
  constexpr int kNarrow = NarrowWidth(kType), kWide = VectorWidth(kType);
  if (args.plan.team > 1) {
    return Launch(config, FusedKernel<RowsPass<T, K, kWide, TeamVectors(kType, K), true>>, args);
  }
  if constexpr (K > 1 || IsWide(kType)) {
    if (args.plan.variant.vector == kNarrow) {
      return LaunchVariant<T, K, kNarrow>(args, config);
    }
  }
  return LaunchVariant<T, K, kWide>(args, config);
}

template <typename T, int D = 1>
Status LaunchNarrow(const FusedArgs& args, const LaunchConfig& config) {
  if constexpr (D > kNarrowColumns) {
    return {Status::Code::kInternal, "no narrow kernel for this plan"};
  } else {
    if (args.d != D) return LaunchNarrow<T, D + 1>(args, config);
    return Launch(config, FusedKernel<NarrowPass<T, D>>, args);
  }
}

template <typename T>
Status LaunchFused(const FusedArgs& args, bool cooperative, cudaStream_t stream) {
  const LaunchConfig config = {"the fused kernel", dim3(static_cast<unsigned>(args.plan.blocks)),
                               args.plan.threads,  static_cast<std::size_t>(args.plan.shared_bytes),
                               cooperative,        stream};
  if constexpr (!IsWide(Element<T>::kType)) {
    if (args.plan.narrow) return LaunchNarrow<T>(args, config);
  }
  switch (args.plan.variant.targets) {
    case 1:
      return LaunchForTargets<T, 1>(args, config);
    case 2:
      return LaunchForTargets<T, 2>(args, config);
    default:
      return LaunchForTargets<T, 4>(args, config);
  }
}

}  // namespace cuda
}  // namespace linreg_ops
