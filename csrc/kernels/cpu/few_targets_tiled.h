// Several targets, or rows too wide for few_targets_rolling.h. Included by few_targets.h.
//
// A tile of rows goes through three phases: dots, residuals, gradient. Its second use hits the
// first-level cache, or the second for rows of thousands of columns; a row wider than half the
// second-level cache comes from the third.
//
// Up to kNarrow columns, the tile is transposed once and vectorised across rows; wider rows are
// vectorised along the row, but the dots of five to eight targets across the targets.

// The buffers of one tile in a worker's scratch: [k][stride] each.
template <class C>
struct Tile {
  std::int64_t stride;
  C* dots;
  C* c;
  C* y;
  C* s;  // [stride]
  char* rest;

  Tile(char* scratch, std::int64_t k, std::int64_t tile_rows)
      : stride(RoundUp(tile_rows, 16)),
        dots(reinterpret_cast<C*>(scratch)),
        c(dots + k * stride),
        y(c + k * stride),
        s(y + k * stride),
        rest(reinterpret_cast<char*>(s + stride)) {}
};

#include "kernels/cpu/few_targets_tiled_eight.h"
#include "kernels/cpu/few_targets_tiled_narrow.h"
#include "kernels/cpu/few_targets_tiled_wide.h"

template <class T>
struct Tiled {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));

  static void Rows(const Problem& p, const Plan& plan, char* workspace, const Inputs<C>& inputs,
                   std::int64_t begin, std::int64_t end, double* partial, int worker) {
    const Tile<C> tile(workspace + plan.scratch_offset + worker * plan.scratch_bytes, p.k,
                       plan.tile_rows);
    Totals totals[kFewTargets];
    double* grad = partial + RoundUp(2 * p.k, 8);
    const T* x = static_cast<const T*>(p.x);
    const auto residuals = [&](std::int64_t row, std::int64_t rows) {
      Residuals(p, inputs, tile, row, rows, totals);
    };
    if (p.d <= kNarrow) {
      const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
      const std::int64_t y_bytes = p.y == nullptr ? 0 : p.k * inputs.element_size;
      TiledNarrow<T>::Rows(p, plan, x, w, begin, end, tile, y_bytes, grad, residuals);
    } else {
      const C* w = reinterpret_cast<const C*>(workspace + plan.weights_offset);
      TiledWide<T>::Rows(p, plan, x, w, begin, end, tile, grad, residuals);
    }
    for (std::int64_t t = 0; t < p.k; ++t) {
      partial[t] = Value(totals[t].loss);
      partial[p.k + t] = Value(totals[t].bias);
    }
  }

 private:
  // Residuals of the tile that starts at `row`, for every target: from tile.dots to tile.c.
  static void Residuals(const Problem& p, const Inputs<C>& inputs, const Tile<C>& tile,
                        std::int64_t row, std::int64_t rows, Totals* totals) {
    const C* w = static_cast<const C*>(p.w);
    const C* y = tile.y;
    if (p.k == 1 || p.y == nullptr) {
      y = inputs.column(p.y, row, rows, tile.y);
    } else {
      inputs.transpose(p.y, row, rows, p.k, tile.y, tile.stride);
    }
    const C* s = inputs.column(p.sample_weight, row, rows, tile.s);
    for (std::int64_t t = 0; t < p.k; ++t) {
      OneTarget(tile.dots + t * tile.stride, At(y, t * tile.stride), s, p.intercept ? w[t] : C(0),
                rows, totals[t], tile.c + t * tile.stride);
    }
  }

  // c = s·(dot + bias − y), zero from `rows` to the next multiple of 16. In C: where prediction and
  // target nearly cancel, their difference is exact.
  static void OneTarget(const C* dots, const C* y, const C* s, C bias, std::int64_t rows,
                        Totals& totals, C* c) {
    const V b = Set(bias);
    Sums local;
    const auto group = [&](std::int64_t i, const C* yi, const C* si, int valid)
                           __attribute__((always_inline)) {
                             V r = Add(Load(dots + i), b);
                             if (yi != nullptr) r = Sub(r, Load(yi));
                             if (valid < W) r = KeepFirst(r, valid);
                             if (si == nullptr) {
                               AddResiduals(r, local);
                               Store(c + i, r);
                             } else {
                               const V sr = Mul(Load(si), r);
                               AddResiduals(sr, r, local);
                               Store(c + i, sr);
                             }
                           };
    std::int64_t i = 0;
    for (; i + W <= rows; i += W) group(i, At(y, i), At(s, i), W);
    for (; i < RoundUp(rows, 16); i += W) {
      const std::int64_t valid = i < rows ? rows - i : 0;
      C y_tail[W] = {}, s_tail[W] = {};
      for (std::int64_t j = 0; j < valid; ++j) {
        if (y != nullptr) y_tail[j] = y[i + j];
        if (s != nullptr) s_tail[j] = s[i + j];
      }
      group(i, y != nullptr ? y_tail : nullptr, s != nullptr ? s_tail : nullptr,
            static_cast<int>(valid));
    }
    totals.Take(local);
  }
};
