// Part of FewTargets: rows of up to kNarrow columns. A tile is transposed once, so that a lane is
// a row and no lane is wasted on padding, whatever d.

static void Narrow(const Problem& p, const Plan& plan, std::int64_t begin, std::int64_t end,
                   char* scratch, double* partial) {
  switch (p.d) {
    case 0:
      return NarrowOf<0>(p, plan, begin, end, scratch, partial);
    case 1:
      return NarrowOf<1>(p, plan, begin, end, scratch, partial);
    case 2:
      return NarrowOf<2>(p, plan, begin, end, scratch, partial);
    case 3:
      return NarrowOf<3>(p, plan, begin, end, scratch, partial);
    case 4:
      return NarrowOf<4>(p, plan, begin, end, scratch, partial);
    case 5:
      return NarrowOf<5>(p, plan, begin, end, scratch, partial);
    case 6:
      return NarrowOf<6>(p, plan, begin, end, scratch, partial);
    case 7:
      return NarrowOf<7>(p, plan, begin, end, scratch, partial);
    case 8:
      return NarrowOf<8>(p, plan, begin, end, scratch, partial);
    default:
      return;
  }
}

template <int D>
static void NarrowOf(const Problem& p, const Plan& plan, std::int64_t begin, std::int64_t end,
                     char* scratch, double* partial) {
  const Tile<C, TY> tile(scratch, p.k, plan.tile_rows);
  C* columns = reinterpret_cast<C*>(tile.rest);
  double* lanes = reinterpret_cast<double*>(columns + D * tile.stride);  // [k][D][W]
  for (std::int64_t i = 0; i < p.k * D * W; ++i) lanes[i] = 0;
  const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
  Sums sums[kFewTargets];
  for (std::int64_t row = begin; row < end; row += plan.tile_rows) {
    const std::int64_t rows = Min(plan.tile_rows, end - row);
    if constexpr (D > 0) {
      Transpose<D>(static_cast<const T*>(p.x) + row * D, rows, columns, tile.stride);
    }
    for (std::int64_t t = 0; t < p.k; ++t) {
      NarrowDots<D>(columns, tile.stride, rows, w + t, p.k, tile.dots + t * tile.stride);
    }
    TileResiduals(p, tile, row, rows, sums);
    if (p.grad == nullptr || D == 0) continue;
    for (std::int64_t t = 0; t < p.k; ++t) {
      NarrowGrad<D>(columns, tile.stride, rows, tile.c + t * tile.stride, lanes + t * D * W);
    }
  }
  StoreSums(p, sums, partial);
  double* grad = partial + RoundUp(2 * p.k, 8);
  for (std::int64_t t = 0; t < p.k; ++t) {
    for (int j = 0; j < D; ++j, lanes += W) {
      F64x8 sum = Load(lanes);
      if constexpr (W == 16) sum = Add(sum, Load(lanes + 8));
      grad[t * plan.padded_d + j] = SumLanes(sum);
    }
  }
}

template <int D>
static void NarrowDots(const C* columns, std::int64_t stride, std::int64_t rows, const C* w,
                       std::int64_t k, double* dots) {
  V weight[D + 1];
#pragma GCC unroll 8
  for (int j = 0; j < D; ++j) weight[j] = Set(w[j * k]);
  for (std::int64_t i = 0; i < rows; i += W) {
    V dot = Zero(V{});
    if constexpr (D > 0) dot = Mul(weight[0], Load(columns + i));
#pragma GCC unroll 8
    for (int j = 1; j < D; ++j) dot = Fma(weight[j], Load(columns + j * stride + i), dot);
    StoreWide(dots + i, dot);
  }
}

// Enough chains of adds to hide their latency; the order of the sums is the same everywhere.
template <int D>
static void NarrowGrad(const C* columns, std::int64_t stride, std::int64_t rows, const C* c,
                       double* lanes) {
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
      const V ci = Load(c + i + chain * W);
#pragma GCC unroll 8
      for (int j = 0; j < D; ++j) {
        sum[chain][j] = Fma(ci, Load(columns + j * stride + i + chain * W), sum[chain][j]);
      }
    }
  }
  for (std::int64_t i = whole; i < rows; i += W) {
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
