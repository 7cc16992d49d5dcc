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
#include "kernels/cpu/lane_per_residual-inl.h"
#include "kernels/cpu/lane_per_row-inl.h"
#include "kernels/cpu/lane_per_row_packed-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// In the order of Route.
constexpr KernelTable kTable = TableOf([](auto x, auto w, DTypePair types) {
  using T = decltype(x);
  using TY = decltype(w);
  Kernels kernels = {types,
                     {{},
                      {nullptr, RunSlots<T, LanePerRow<T>>},
                      {},
                      {LanePerResidual<T>::Prepare, RunSlots<T, LanePerResidual<T>>},
                      {PackWeights<T>, RunSlots<T, LanePerColumn<T>>},
                      {FewTargets<T>::Prepare, RunSlots<T, FewTargets<T>>},
                      {Gemm<T>::Prepare, GemmSlots<T>::Run},
                      {Gemm<T>::Prepare, GemmRounds<T>::Run}},
                     Widen<TY>,
                     Narrow<TY>,
                     nullptr};
  if constexpr (std::is_same_v<T, Compute<T>>) {
    kernels.engines[static_cast<int>(Route::kLanePerRowPacked)] = {
        nullptr, RunSlots<T, LanePerRowPacked<T>>};
    kernels.pack = LanePerRowPacked<T>::Pack;
  }
  return kernels;
});

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
