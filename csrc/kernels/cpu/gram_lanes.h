// Whole blocks of few columns: a lane for each of a block's eight runs. So only the products that
// are wanted are computed, and d = 1 has full vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/gram_blocks.h"
#include "kernels/cpu/gram_kernel.h"
#include "kernels/cpu/gram_layout.h"

namespace linreg_ops {
namespace cpu {

class GramLanes {
 public:
  GramLanes(const GramLayout& layout, const GramKernels& kernels, const GramInput& input)
      : layout_(layout), kernels_(kernels), input_(input) {}

  // Bytes of scratch that a block takes; 0: no block of such a layout is taken in lanes.
  static std::int64_t ScratchBytes(const GramLayout& layout);

  // Whether the block's rows lie one after the other, and have few columns.
  bool Take(const GramBlock& block) const;

  // Writes all of the block's sums but that of its weights, which are null for ones.
  void Sum(const GramBlock& block, const double* weights, double* scratch, double* slot) const;

 private:
  void ToLanes(const GramArray& array, std::int64_t row, std::int64_t rows, const double* scale,
               const double* offset, double* lanes, std::int64_t stride) const;
  void AddRuns(const double* sums, double* slot) const;

  const GramLayout& layout_;
  const GramKernels& kernels_;
  const GramInput& input_;
};

}  // namespace cpu
}  // namespace linreg_ops
