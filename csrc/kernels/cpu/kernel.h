// The internal interface between the drivers (one call, one descent) and the kernels of one
// instruction set. Plain data only: a unit built with instruction-set flags must use no inline
// function that another unit might link to.
//
// One evaluation of loss and gradient is prepare(), then `stages` stages of independent tasks; a
// stage starts when all tasks of the one before are done. Which tasks there are, and so every
// bit of the result, depends on the shape and the types alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/l2_loss_grad.h"  // DType, Route

namespace linreg_ops {
namespace cpu {

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

// Elements of a type.
template <DType type>
using Element =
    std::tuple_element_t<static_cast<int>(type), std::tuple<float, double, Half, BFloat16>>;

// The type that elements of type T are computed in.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Static: of no other unit.
static constexpr std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
static constexpr std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return CeilDiv(a, b) * b; }

// One evaluation. C, the compute type, is double where X is float64 and float otherwise.
struct Problem {
  std::int64_t n, d, k;
  bool intercept;
  bool wide_y;    // y and sample_weight are of type C; else, with a 16-bit X, of X's type
  const void* x;  // [n, d], x_type
  const void* w;  // [d + intercept, k], C
  const void* y;  // [n, k]; null: zeros
  const void* sample_weight;  // [n]; null: ones
  double* loss;               // [k]: Σᵢ sᵢ rᵢₜ², without the ½; always written
  void* grad;                 // [d + intercept, k], C; null: not wanted
  // Asked within tasks that take long; true: the rest of the task may be left out. Null: never.
  bool (*cancelled)(void* context);
  void* cancelled_context;
};

constexpr std::int64_t kPanelsOfR = 8;  // panels of R that a gemm slot's worker keeps at a time

// What gemm-inl.h is told. Offsets are bytes into the workspace.
struct GemmPlan {
  std::int64_t span_rows;    // rows of a slot, or of a round
  std::int64_t chunk_rows;   // rows between the two uses of which X stays in the cache
  std::int64_t flush_rows;   // slots: rows of one accumulator of the gradient, in whole chunks
  std::int64_t depth;        // features of one accumulator of a residual
  std::int64_t packed_from;  // the first panel of W that is packed

  // Rounds: the tasks of a stage.
  std::int64_t block_rows;           // a residual task: rows ...
  std::int64_t panels_per_task;      // ... by panels of W
  std::int64_t features_per_task;    // a gradient task: features ...
  std::int64_t panels_per_gradient;  // ... by panels of R

  // Slots: features of one task of the reduction.
  std::int64_t features_per_reduction;

  std::int64_t x_stride;          // of X as the tiles read it: copied to C, or d in place
  std::int64_t weights_offset;    // C [panels][d][panel]
  std::int64_t bias_offset;       // C [panels · panel]
  std::int64_t x_offset;          // rounds: C [2][span_rows][x_stride], where X is copied
  std::int64_t residuals_offset;  // rounds: C [panels][span_rows][panel]
  std::int64_t grads_offset;      // double: slots [slots][...], rounds: [panels][d][panel]
  std::int64_t slot_stride;       // doubles
  std::int64_t sums_offset;       // double [slots or blocks of a round, + 1][2][panels · panel]
  std::int64_t scratch_offset;    // [workers][scratch_bytes]
  std::int64_t scratch_bytes;
};

// What to do in which order, a function of shape and types; only `workers` and the size of the
// workspace depend on the number of threads.
struct Plan {
  static constexpr int kMaxTasks = 32767;  // per stage
  Route route;
  int stages;
  std::int32_t tasks[3];         // stages beyond the third repeat the second and third in turn
  int workers;                   // bodies worth running at a time, 1 ... threads
  std::int64_t tile_rows;        // rows whose second use hits the cache
  std::int64_t workspace_bytes;  // 64-byte aligned

  // The routes of up to kFewTargets targets: see few_driver-inl.h. Offsets are bytes into the
  // workspace.
  std::int64_t slot_rows;         // rows of one task of the first stage
  std::int64_t columns_per_task;  // columns of one task of the reduction
  std::int64_t padded_d;          // columns of the padded rows of weights and gradients
  std::int64_t weights_offset;    // C, as the route packs them
  std::int64_t partials_offset;   // double [slots][partial_stride]: [2][k] sums, then from
  std::int64_t partial_stride;    // partial_head on the gradient [k][padded_d]
  std::int64_t partial_head;
  std::int64_t packed_offset;   // lane_per_row_packed: C [rows / lanes][d][lanes]
  std::int64_t scratch_offset;  // [workers][scratch_bytes]
  std::int64_t scratch_bytes;
  // Bytes into a worker's scratch.
  std::int64_t y_offset;        // C [tile_rows][padded k]
  std::int64_t s_offset;        // C [tile_rows + lanes]
  std::int64_t c_offset;        // C [tile_rows][padded k]: dots, then residuals
  std::int64_t columns_offset;  // C [d][tile_rows], + lanes: X transposed
  std::int64_t lanes_offset;    // double [d][lanes]
  std::int64_t grad_offset;     // C [k][padded_d]

  GemmPlan gemm;
};

constexpr std::int64_t kFewTargets = 8;
constexpr std::int64_t kNarrow = 8;  // features up to which k > 1 takes lane_per_residual

// What runs a route.
struct Engine {
  void (*prepare)(const Problem&, const Plan&, char* workspace);  // null: nothing to prepare
  // `worker` is in [0, workers): no two tasks run at the same time with the same one.
  void (*run)(const Problem&, const Plan&, char* workspace, int stage, int task, int worker);
};

// One row per pair of types: what an instruction set has to offer.
struct Kernels {
  DTypePair types;             // of x; of w, y, sample_weight and the outputs
  Engine engines[kNumRoutes];  // null: not in this instruction set
  void (*widen)(const void* from, void* to, std::int64_t count);   // w_type -> C
  void (*narrow)(const void* from, void* to, std::int64_t count);  // C -> w_type
  // Makes the copy of X that lane_per_row_packed reads, before the first evaluation.
  void (*pack)(const Problem&, const Plan&, char* workspace);

  const Engine& engine(Route route) const { return engines[static_cast<int>(route)]; }
  bool is_plain() const { return engine(Route::kPlain).run != nullptr; }
};

using KernelTable = std::array<Kernels, kNumDTypePairs>;  // in the order of kDTypePairs

// of(an x, a w, their types) for each pair: what an instruction set's table is made by.
template <class Of, std::size_t... kPair>
static constexpr KernelTable TableOf(Of of, std::index_sequence<kPair...>) {
  return {
      of(Element<kDTypePairs[kPair].x>{}, Element<kDTypePairs[kPair].w>{}, kDTypePairs[kPair])...};
}
template <class Of>
static constexpr KernelTable TableOf(Of of) {
  return TableOf(of, std::make_index_sequence<kNumDTypePairs>{});
}
extern const KernelTable& kAvx512Kernels;
extern const KernelTable& kAvx2Kernels;
extern const KernelTable& kNeonKernels;
extern const KernelTable& kScalarKernels;

}  // namespace cpu
}  // namespace linreg_ops
