// One instruction set's table: which engine runs which route, for each pair of types. Part of that
// instruction set's unit: see vec-inl.h.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/few_driver-inl.h"
#include "kernels/cpu/few_targets-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/gemm_rounds-inl.h"
#include "kernels/cpu/gemm_slots-inl.h"
#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"
#include "kernels/cpu/lane_per_column-inl.h"
#include "kernels/cpu/lane_per_row-inl.h"
#include "kernels/cpu/lane_per_row_tile-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// In the order of Route.
template <class T, class TY>
constexpr Kernels KernelsOf(DType x_type, DType w_type) {
  Kernels kernels = {x_type,
                     w_type,
                     {{},
                      {PrepareNothing, RunSlots<T, LanePerRow<T>>},
                      {},
                      {PrepareNothing, RunSlots<T, LanePerRowTile<T>>},
                      {PackWeights<T>, RunSlots<T, LanePerColumn<T>>},
                      {FewTargets<T>::Prepare, RunSlots<T, FewTargets<T>>},
                      {Gemm<T>::Prepare, GemmSlots<T>::Run},
                      {Gemm<T>::Prepare, GemmRounds<T>::Run}},
                     Widen<TY>,
                     Narrow<TY>,
                     nullptr};
  if constexpr (std::is_same_v<T, Compute<T>>) {
    kernels.engines[static_cast<int>(Route::kLanePerRowPacked)] = {
        PrepareNothing, RunSlots<T, LanePerRowPacked<T>>};
    kernels.pack = LanePerRowPacked<T>::Pack;
  }
  return kernels;
}

constexpr KernelTable kTable = {
    KernelsOf<float, float>(DType::kFloat32, DType::kFloat32),
    KernelsOf<double, double>(DType::kFloat64, DType::kFloat64),
    KernelsOf<Half, Half>(DType::kFloat16, DType::kFloat16),
    KernelsOf<Half, float>(DType::kFloat16, DType::kFloat32),
    KernelsOf<BFloat16, BFloat16>(DType::kBFloat16, DType::kBFloat16),
    KernelsOf<BFloat16, float>(DType::kBFloat16, DType::kFloat32),
};

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
