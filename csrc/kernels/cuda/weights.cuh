// W in shared memory, and the columns of X and W that belong to one thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/element.cuh"

namespace linreg_ops {
namespace cuda {

// A thread's V columns: `stride` apart from `base`.
template <typename T, int V>
__device__ inline void LoadColumns(const T* row, int base, int stride, int d, bool wide,
                                   AccumulatorOf<T> (&x)[V]) {
  if (wide) {
    if (base < d) {
      LoadVector<V>(row + base, x);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) x[i] = 0;
    }
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = base + i * stride;
      x[i] = c < d ? Element<T>::Load(row[c]) : AccumulatorOf<T>(0);
    }
  }
}

// Weights in shared memory: for each target its row of d, in the order in which the lanes of a warp
// read 16 bytes each without bank conflicts; the intercept's behind them.
template <typename A, int V>
struct Weights {
  static constexpr int kPerLoad = 16 / sizeof(A);
  static constexpr int kLoads = V > kPerLoad ? V / kPerLoad : 1;
  A* const base;
  const int d, targets;
  const bool vector_columns;

  __device__ A& bias(int target) const { return base[targets * d + target]; }
  __device__ A& at(int target, int column) const {
    if (kLoads == 1 || !vector_columns) return base[target * d + column];
    const int vector = column / V, i = column % V;
    return base[((target * kLoads + i / kPerLoad) * (d / V) + vector) * kPerLoad + i % kPerLoad];
  }
  // Row `e / k`, target `e % k` of the array the caller knows.
  __device__ A& element(std::int64_t e, int k, bool intercept) const {
    const int row = static_cast<int>(e / k), target = static_cast<int>(e % k);
    if (!intercept) return at(target, row);
    return row == 0 ? bias(target) : at(target, row - 1);
  }
  // A thread's V columns, as LoadColumns has them; base_column < d.
  __device__ void Load(int target, int base_column, int stride, A (&w)[V]) const {
    if (vector_columns) {
#pragma unroll
      for (int h = 0; h < kLoads; ++h) {
        A part[kPerLoad];
        LoadVector<kPerLoad>(base + ((target * kLoads + h) * (d / V) + base_column / V) * kPerLoad,
                             part);
#pragma unroll
        for (int i = 0; i < kPerLoad; ++i) w[h * kPerLoad + i] = part[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int c = base_column + i * stride;
        w[i] = c < d ? base[target * d + c] : A(0);
      }
    }
  }
};

}  // namespace cuda
}  // namespace linreg_ops
