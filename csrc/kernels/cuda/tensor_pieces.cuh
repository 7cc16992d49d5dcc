// A warp's part of a tile of float32 or float16 X, whose numbers are split on their way from shared
// memory to the tensor cores.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/tensor_cores.cuh"

namespace linreg_ops {
namespace cuda {

// 32 · U columns, 8 · N targets. Three pieces hold a float32, two a float16; of the products of X's
// pieces and the other factor's three, those below 2^-24 of the highest are left out, which leaves
// six of nine, or five. As many products of TF32 numbers take as long, and their 22 bits leave a
// sum that is rounded towards zero no room: three times the error.
//
// The order of the columns and of the rows within a product is free, if both factors have the same:
// it is the one in which a lane's numbers are neighbours in memory, and no two lanes of a load on
// one bank.
template <typename T, int N, int U>
class PiecesTile {
 public:
  using Number = T;
  using R = ResidualPieces<N>;
  static constexpr int kTargets = 8 * N, kColumns = 32 * U;

  template <typename Weight>
  __device__ void LoadWeights(int lane, const Weight& weight) {
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int l = 0; l < 2; ++l) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int column = u * 32 + ColumnOf(lane, l) + h * 2, target = j * 8 + lane / 4;
            std::uint32_t piece[3];
            Split(weight(column, target), weight(column + 1, target), piece);
#pragma unroll
            for (int p = 0; p < 3; ++p) w_[u][l][j][p][h] = piece[p];
          }
        }
      }
    }
  }
  __device__ void ClearSums() {
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) g_[u][i][j][e] = 0;
        }
      }
    }
  }

  template <typename Put>
  __device__ void Products(int lane, const unsigned char* x, int pitch, const Put& put) const {
    const unsigned char* const at = x + lane / 4 * pitch;
    float sum[N][4] = {};
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int l = 0; l < 2; ++l) {
        const int offset = (u * 32 + ColumnOf(lane, l)) * static_cast<int>(sizeof(T));
        std::uint32_t a[kPieces][4];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float v[4];
          Load(at + h * 8 * pitch + offset, v);
#pragma unroll
          for (int i = 0; i < 2; ++i) SplitInto(v[i * 2], v[i * 2 + 1], a, i * 2 + h);
        }
#pragma unroll
        for (int j = 0; j < N; ++j) AddProducts(sum[j], a, w_[u][l][j]);
      }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int row = lane / 4, target = j * 8 + lane % 4 * 2;
      put(row, target, sum[j][0], sum[j][1]);
      put(row + 8, target, sum[j][2], sum[j][3]);
    }
  }

  // Rows stand in the order 0, 4, 1, 5, 2, 6, 3, 7, and eight more: a lane has rows q and q + 4.
  __device__ static int PlaceOf(int row) { return row / 8 * 8 + row % 4 * 2 + row / 4 % 2; }

  __device__ void AddGradient(int lane, const unsigned char* x, int pitch, const unsigned char* r) {
    std::uint32_t b[3][N][2];
    R::Load(lane, r, b);
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const unsigned char* const at =
          x + lane % 4 * pitch + (u * 32 + lane / 4 * 4) * static_cast<int>(sizeof(T));
      float v[4][4];
#pragma unroll
      for (int h = 0; h < 4; ++h) Load(at + h * 4 * pitch, v[h]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        std::uint32_t a[kPieces][4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {  // column e % 2 of two, rows from e / 2 · 8 on
          SplitInto(v[e / 2 * 2][i * 2 + e % 2], v[e / 2 * 2 + 1][i * 2 + e % 2], a, e);
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
          std::uint32_t of[3][2];
#pragma unroll
          for (int p = 0; p < 3; ++p) of[p][0] = b[p][j][0], of[p][1] = b[p][j][1];
          AddProducts(g_[u][i][j], a, of);
        }
      }
    }
  }

  template <typename Use>
  __device__ void ForEachSum(int lane, const Use& use) const {
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const int column = u * 32 + lane / 4 * 4 + i * 2, target = j * 8 + lane % 4 * 2;
          use(column, target, g_[u][i][j][0], g_[u][i][j][1]);
          use(column + 1, target, g_[u][i][j][2], g_[u][i][j][3]);
        }
      }
    }
  }

 private:
  static constexpr bool kWide = sizeof(T) == 4;
  static constexpr int kPieces = kWide ? 3 : 2;

  // The first column within 32 of a lane's load number `l`, of four.
  __device__ static int ColumnOf(int lane, int l) {
    const int q = lane % 4;
    return kWide ? q % 2 * 4 + q / 2 * 16 + l * 8 : q * 4 + l * 16;
  }
  __device__ static void Load(const unsigned char* at, float (&v)[4]) {
    if constexpr (kWide) {
      const float4 f = *reinterpret_cast<const float4*>(at);
      v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    } else {
      const uint2 f = *reinterpret_cast<const uint2*>(at);
      __half2 a, b;
      memcpy(&a, &f.x, 4);
      memcpy(&b, &f.y, 4);
      v[0] = __low2float(a), v[1] = __high2float(a), v[2] = __low2float(b), v[3] = __high2float(b);
    }
  }
  __device__ static void SplitInto(float first, float second, std::uint32_t (&a)[kPieces][4],
                                   int e) {
    std::uint32_t piece[kPieces];
    Split(first, second, piece);
#pragma unroll
    for (int p = 0; p < kPieces; ++p) a[p][e] = piece[p];
  }

  // The highest pieces' sum apart from the others'.
  __device__ static void AddProducts(float (&sum)[4], const std::uint32_t (&a)[kPieces][4],
                                     const std::uint32_t (&b)[3][2]) {
    float highest[4] = {}, rest[4] = {};
#pragma unroll
    for (int order = 2; order >= 1; --order) {
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        if (p <= order) MultiplyAdd(rest, a[p], b[order - p]);
      }
    }
    MultiplyAdd(highest, a[0], b[0]);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] += highest[e] + rest[e];
  }

  std::uint32_t w_[U][2][N][3][2];
  float g_[U][2][N][4];
};

}  // namespace cuda
}  // namespace linreg_ops
