// A warp's part of a tile of bfloat16 X: exact as it is, so that only W and the residuals are
// split.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/tensor_cores.cuh"

namespace linreg_ops {
namespace cuda {

// 16 · U columns, 8 · N targets. A product of 8-bit pieces has 16 bits, and the sum of sixteen of
// them is all but exact in 24: the highest pieces' sums leave the tensor cores after each sixteen
// columns or rows, to be rounded to nearest. The others' stay: what is lost there is 2^-8 of it.
template <int N, int U>
class Bfloat16Tile {
 public:
  using Number = __nv_bfloat16;
  using R = ResidualPieces<N>;
  static constexpr int kTargets = 8 * N, kColumns = 16 * U;

  // weight(column, target)
  template <typename Weight>
  __device__ void LoadWeights(int lane, const Weight& weight) {
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int column = u * 16 + h * 8 + lane % 4 * 2, target = j * 8 + lane / 4;
          std::uint32_t piece[3];
          Split(weight(column, target), weight(column + 1, target), piece);
#pragma unroll
          for (int p = 0; p < 3; ++p) w_[u][j][p][h] = piece[p];
        }
      }
    }
  }
  __device__ void ClearSums() {
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) g_[u][j][e] = 0;
      }
    }
  }

  // X·W of the warp's columns: put(row, target, value, value of the next target).
  template <typename Put>
  __device__ void Products(int lane, const unsigned char* x, int pitch, const Put& put) const {
    const std::uint32_t at = SharedAddress(x) + lane % 16 * pitch + lane / 16 * 16;
    float sum[N][4] = {}, rest[N][4] = {};
#pragma unroll
    for (int u = 0; u < U; ++u) {
      std::uint32_t a[4];
      LoadMatrices(at + u * 32, a);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float highest[4] = {};
        MultiplyAdd(rest[j], a, w_[u][j][2]);
        MultiplyAdd(rest[j], a, w_[u][j][1]);
        MultiplyAdd(highest, a, w_[u][j][0]);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[j][e] += highest[e];
      }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int row = lane / 4, target = j * 8 + lane % 4 * 2;
      put(row, target, sum[j][0] + rest[j][0], sum[j][1] + rest[j][1]);
      put(row + 8, target, sum[j][2] + rest[j][2], sum[j][3] + rest[j][3]);
    }
  }

  __device__ static int PlaceOf(int row) { return row; }

  // Xᵀ·R of the warp's columns, into their sums.
  __device__ void AddGradient(int lane, const unsigned char* x, int pitch, const unsigned char* r) {
    std::uint32_t b[3][N][2];
    R::Load(lane, r, b);
    const std::uint32_t at =
        SharedAddress(x) + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 16;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      std::uint32_t a[4];
      LoadTransposed(at + u * 32, a);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float highest[4] = {}, rest[4] = {};
        MultiplyAdd(rest, a, b[2][j]);
        MultiplyAdd(rest, a, b[1][j]);
        MultiplyAdd(highest, a, b[0][j]);
#pragma unroll
        for (int e = 0; e < 4; ++e) g_[u][j][e] += highest[e] + rest[e];
      }
    }
  }

  // use(column, target, sum, sum of the next target)
  template <typename Use>
  __device__ void ForEachSum(int lane, const Use& use) const {
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int column = u * 16 + lane / 4, target = j * 8 + lane % 4 * 2;
        use(column, target, g_[u][j][0], g_[u][j][1]);
        use(column + 8, target, g_[u][j][2], g_[u][j][3]);
      }
    }
  }

 private:
  std::uint32_t w_[U][N][3][2];
  float g_[U][N][4];
};

}  // namespace cuda
}  // namespace linreg_ops
