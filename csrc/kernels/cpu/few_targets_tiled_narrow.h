// Tiles of rows of up to kNarrow columns. Included by few_targets_tiled.h.
//
// The next tile is fetched meanwhile, y's rows during the dots and X's during the gradient, a share
// with every target: where both came in with the transpositions, and memory idled in between, the
// pass took up to twice as long.

template <class T>
struct TiledNarrow {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));

  template <class Residuals>
  static void Rows(const Problem& p, const Plan& plan, const T* x, const C* w, std::int64_t begin,
                   std::int64_t end, const Tile<C>& tile, std::int64_t y_bytes, double* grad,
                   Residuals residuals) {
    using Fn = decltype(&RowsOf<0, Residuals>);
    static constexpr Fn kTable[] = {
        RowsOf<0, Residuals>, RowsOf<1, Residuals>, RowsOf<2, Residuals>,
        RowsOf<3, Residuals>, RowsOf<4, Residuals>, RowsOf<5, Residuals>,
        RowsOf<6, Residuals>, RowsOf<7, Residuals>, RowsOf<8, Residuals>};
    kTable[p.d](p, plan, x, w, begin, end, tile, y_bytes, grad, residuals);
  }

 private:
  template <int D, class Residuals>
  static void RowsOf(const Problem& p, const Plan& plan, const T* x, const C* w, std::int64_t begin,
                     std::int64_t end, const Tile<C>& tile, std::int64_t y_bytes, double* grad,
                     Residuals residuals) {
    C* columns = reinterpret_cast<C*>(tile.rest);                          // [D][stride]
    double* lanes = reinterpret_cast<double*>(columns + D * tile.stride);  // [k][D][W]
    for (std::int64_t i = 0; i < p.k * D * W; ++i) lanes[i] = 0;
    for (std::int64_t row = begin; row < end; row += plan.tile_rows) {
      const std::int64_t rows = Min(plan.tile_rows, end - row);
      if constexpr (D > 0) Transpose<D>(x + row * D, rows, columns, tile.stride);
      for (std::int64_t t = 0; t < p.k; ++t) {
        const Share share(y_bytes == 0 ? x : p.y, row + rows, y_bytes, t, p.k);
        Dots<D>(columns, tile.stride, rows, w + t, p.k, share, tile.dots + t * tile.stride);
      }
      residuals(row, rows);
      if (p.grad == nullptr || D == 0) continue;
      for (std::int64_t t = 0; t < p.k; ++t) {
        const Share share(x, row + rows, D * sizeof(T), t, p.k);
        Grad<D>(columns, tile.stride, rows, tile.c + t * tile.stride, share, lanes + t * D * W);
      }
    }
    for (std::int64_t t = 0; t < p.k; ++t) {
      for (int j = 0; j < kNarrow; ++j) {
        grad[t * plan.padded_d + j] =
            j < D ? SumLanes(static_cast<const C*>(nullptr), lanes + (t * D + j) * W) : 0;
      }
    }
  }

  // Of every W rows of an array, from a row on, what is fetched with target t of k.
  struct Share {
    const char* first;
    std::int64_t bytes;       // of a row
    std::int64_t begin, end;  // of W rows

    Share(const void* base, std::int64_t row, std::int64_t row_bytes, std::int64_t t,
          std::int64_t k)
        : first(static_cast<const char*>(base) + row * row_bytes),
          bytes(row_bytes),
          begin(W * row_bytes * t / k),
          end(W * row_bytes * (t + 1) / k) {}

    // Row i is a multiple of W.
    [[gnu::always_inline]] void Fetch(std::int64_t i) const {
      for (std::int64_t at = begin; at < end; at += 64) PrefetchOnce(first + i * bytes + at);
    }
  };

  template <int D>
  static void Dots(const C* columns, std::int64_t stride, std::int64_t rows, const C* w,
                   std::int64_t k, const Share& share, C* dots) {
    V weight[D + 1];
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) weight[j] = Set(w[j * k]);
    for (std::int64_t i = 0; i < rows; i += W) {
      share.Fetch(i);
      V dot = Zero(V{});
      if constexpr (D > 0) dot = Mul(weight[0], Load(columns + i));
#pragma GCC unroll 8
      for (int j = 1; j < D; ++j) dot = Fma(weight[j], Load(columns + j * stride + i), dot);
      Store(dots + i, dot);
    }
  }

  // Enough chains of adds to hide their latency; the order of the sums is the same everywhere.
  template <int D>
  static void Grad(const C* columns, std::int64_t stride, std::int64_t rows, const C* c,
                   const Share& share, double* lanes) {
    constexpr int kChains = D == 1 ? 4 : D <= 3 ? 2 : 1;
    V sum[kChains][D + 1];
#pragma GCC unroll 8
    for (int chain = 0; chain < kChains; ++chain) {
#pragma GCC unroll 8
      for (int j = 0; j < D; ++j) sum[chain][j] = Zero(V{});
    }
    const std::int64_t whole = rows / (kChains * W) * (kChains * W);
    for (std::int64_t i = 0; i < whole; i += kChains * W) {
#pragma GCC unroll 8
      for (int chain = 0; chain < kChains; ++chain) {
        share.Fetch(i + chain * W);
        const V ci = Load(c + i + chain * W);
#pragma GCC unroll 8
        for (int j = 0; j < D; ++j) {
          sum[chain][j] = Fma(ci, Load(columns + j * stride + i + chain * W), sum[chain][j]);
        }
      }
    }
    for (std::int64_t i = whole; i < rows; i += W) {
      share.Fetch(i);
      const V ci = Load(c + i);
#pragma GCC unroll 8
      for (int j = 0; j < D; ++j) sum[0][j] = Fma(ci, Load(columns + j * stride + i), sum[0][j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) {
      V total = sum[0][j];
      if constexpr (kChains == 2) total = Add(total, sum[1][j]);
      if constexpr (kChains == 4) {
        total = Add(Add(total, sum[1][j]), Add(sum[2][j], sum[3][j]));
      }
      AddWide(lanes + j * W, total);
    }
  }
};
