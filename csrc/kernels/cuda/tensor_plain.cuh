// The rows of a block of the tensor cores' kernel once more, by plain float32 arithmetic: where
// bfloat16 pieces do not hold the numbers, as they hold no infinity. Slower, and right.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/reduce.cuh"

namespace linreg_ops {
namespace cuda {

template <typename T>
class PlainPass {
 public:
  __device__ PlainPass(const FusedArgs& args, unsigned char* shared)
      : args_(args),
        count_(args.d * args.k),
        w_(reinterpret_cast<float*>(shared)),
        sums_(w_ + count_),
        residuals_(sums_ + count_),
        weighted_(residuals_ + kTensorRows * args.k) {}

  // Writes all of the block's partial sums.
  __device__ void Run() {
    const int bias = args_.intercept ? args_.k : 0;
    for (int i = threadIdx.x; i < count_; i += blockDim.x) {
      w_[i] = LoadAs<float>(args_.w, bias + i, args_.w_type);
      sums_[i] = 0;
    }
    __syncthreads();
    const std::int64_t run = std::int64_t{args_.plan.groups} * kTensorRows;
    bool first = true;
    int rows = 0;
#pragma unroll 1
    for (std::int64_t begin = blockIdx.x * run; begin < args_.n; begin += gridDim.x * run) {
#pragma unroll 1
      for (std::int64_t row = begin; row < begin + run && row < args_.n; row += kTensorRows) {
        const std::int64_t left = args_.n - row;
        AddRows(row, left < kTensorRows ? static_cast<int>(left) : kTensorRows);
        rows += kTensorRows;
        if (rows < kSegmentRows) continue;
        FlushSums(first);
        first = false;
        rows = 0;
      }
    }
    FlushSums(first);
    double* const partial = args_.partials + blockIdx.x * args_.partial_stride();
    if (static_cast<int>(threadIdx.x) < args_.k) {
      if (bias != 0) partial[threadIdx.x] = bias_;
      partial[args_.weights() + threadIdx.x] = 0.5 * loss_;
    }
  }

 private:
  __device__ void AddRows(std::int64_t row, int rows) {
    const int k = args_.k, d = args_.d;
    const T* const x = static_cast<const T*>(args_.x) + row * d;
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * k; i += blockDim.x) {
      const int r = i / k, target = i - r * k;
      float sum = args_.intercept ? LoadAs<float>(args_.w, target, args_.w_type) : 0.0f;
#pragma unroll 4
      for (int c = 0; c < d; ++c) sum += Element<T>::Load(x[r * d + c]) * w_[c * k + target];
      if (args_.y != nullptr) sum -= LoadAs<float>(args_.y, row * k + i, args_.y_type);
      residuals_[i] = sum;
      if (args_.s != nullptr) sum *= LoadAs<float>(args_.s, row + r, args_.y_type);
      weighted_[i] = sum;
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < k) {
#pragma unroll 1
      for (int i = threadIdx.x; i < rows * k; i += k) {
        loss_ += static_cast<double>(residuals_[i] * weighted_[i]);
        bias_ += static_cast<double>(weighted_[i]);
      }
    }
#pragma unroll 1
    for (int i = threadIdx.x; i < count_; i += blockDim.x) {
      const int column = i / k, target = i - column * k;
      float sum = sums_[i];
#pragma unroll 4
      for (int r = 0; r < rows; ++r) {
        sum += Element<T>::Load(x[r * d + column]) * weighted_[r * k + target];
      }
      sums_[i] = sum;
    }
    __syncthreads();
  }

  // Each thread its own.
  __device__ void FlushSums(bool first) {
    double* const partial = args_.partials + blockIdx.x * args_.partial_stride();
    const int bias = args_.intercept ? args_.k : 0;
    for (int i = threadIdx.x; i < count_; i += blockDim.x) {
      AddPartial(partial + bias + i, static_cast<double>(sums_[i]), first);
      sums_[i] = 0;
    }
  }

  const FusedArgs& args_;
  const int count_;
  float *const w_, *const sums_, *const residuals_, *const weighted_;
  double loss_ = 0, bias_ = 0;  // of the target with the thread's number
};

}  // namespace cuda
}  // namespace linreg_ops
