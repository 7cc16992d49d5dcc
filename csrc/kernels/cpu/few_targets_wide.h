// Part of FewTargets: rows of more than kNarrow columns, vectorised along the row.

// How many rows climb from C to double at a time.
static constexpr std::int64_t kRowsPerFlush = 128;
// Dots are summed in C over this many vectors, in double beyond.
static constexpr std::int64_t kVectorsPerSegment = 256;

// The last vector of a row whose length is not a multiple of W: of a row shorter than W its
// elements with zeros behind; else the W elements that end the row, with zeros in place of those
// that the vector before has. Neither reads outside the row.
static V LoadTail(const T* row, std::int64_t d) {
  if (d < W) return LoadFirst(row, static_cast<int>(d));
  return LoadFrom(row + d - W, static_cast<int>(W - d % W));
}

static void Wide(const Problem& p, const Plan& plan, char* workspace, std::int64_t begin,
                 std::int64_t end, char* scratch, double* partial) {
  const Tile<C, TY> tile(scratch, p.k, plan.tile_rows);
  C* grad = reinterpret_cast<C*>(tile.rest);  // [k][padded_d]
  const std::int64_t size = p.k * plan.padded_d;
  double* slot_grad = partial + RoundUp(2 * p.k, 8);
  for (std::int64_t i = 0; i < size; i += W) Store(grad + i, Zero(V{}));
  for (std::int64_t i = 0; i < size; i += 8) Store(slot_grad + i, Zero(F64x8{}));
  const C* w = reinterpret_cast<const C*>(workspace + plan.weights_offset);
  const T* x = static_cast<const T*>(p.x);
  Sums sums[kFewTargets];
  std::int64_t unflushed = 0;
  for (std::int64_t row = begin; row < end; row += plan.tile_rows) {
    const std::int64_t rows = Min(plan.tile_rows, end - row);
    WideDots(p.k, x + row * p.d, p.d, rows, w, plan.padded_d, tile);
    TileResiduals(p, tile, row, rows, sums);
    if (p.grad == nullptr) continue;
    WideGrad(p.k, x + row * p.d, p.d, rows, plan.padded_d, tile, grad);
    unflushed += rows;
    if (unflushed >= kRowsPerFlush || row + rows == end) {
      for (std::int64_t i = 0; i < size; i += W) {
        AddWide(slot_grad + i, Load(grad + i));
        Store(grad + i, Zero(V{}));
      }
      unflushed = 0;
    }
  }
  StoreSums(p, sums, partial);
}

static void WideDots(std::int64_t k, const T* x, std::int64_t d, std::int64_t rows, const C* w,
                     std::int64_t padded_d, const Tile<C, TY>& tile) {
  switch (k) {
    case 1:
      return WideDotsOf<1>(x, d, rows, w, padded_d, tile);
    case 2:
      return WideDotsOf<2>(x, d, rows, w, padded_d, tile);
    case 3:
      return WideDotsOf<3>(x, d, rows, w, padded_d, tile);
    case 4:
      return WideDotsOf<4>(x, d, rows, w, padded_d, tile);
    case 5:
      return WideDotsOf<5>(x, d, rows, w, padded_d, tile);
    case 6:
      return WideDotsOf<6>(x, d, rows, w, padded_d, tile);
    case 7:
      return WideDotsOf<7>(x, d, rows, w, padded_d, tile);
    case 8:
      return WideDotsOf<8>(x, d, rows, w, padded_d, tile);
    default:
      return;
  }
}

template <int K>
static void WideDotsOf(const T* x, std::int64_t d, std::int64_t rows, const C* w,
                       std::int64_t padded_d, const Tile<C, TY>& tile) {
  // Rows that share a load of w: as many as the registers and one SumEach take.
  constexpr int kRegisters = Min(kAccumulators, W) / (K == 1 ? 2 : 1);
  constexpr int kRows = kRegisters >= 8 * K   ? 8
                        : kRegisters >= 4 * K ? 4
                        : kRegisters >= 2 * K ? 2
                                              : 1;
  std::int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    Dots<K, kRows>(x + row * d, d, w, padded_d, tile.dots + row, tile.stride);
  }
  for (; row < rows; ++row) {
    Dots<K, 1>(x + row * d, d, w, padded_d, tile.dots + row, tile.stride);
  }
}

// dots[t·stride + i] = x[i]·w[t] for i < kRows. One target's rows are summed in two chains.
template <int K, int kRows>
static void Dots(const T* x, std::int64_t d, const C* w, std::int64_t padded_d, double* dots,
                 std::int64_t stride) {
  constexpr int kChains = K == 1 ? 2 : 1;
  constexpr int kSums = PowerOfTwo(K * kRows);
  const std::int64_t whole = d / W * W;
  for (std::int64_t begin = 0; begin < padded_d; begin += kVectorsPerSegment * W) {
    const std::int64_t end = Min(begin + kVectorsPerSegment * W, whole);
    V sum[kChains][kSums];
#pragma GCC unroll 32
    for (int i = 0; i < kChains * kSums; ++i) sum[i / kSums][i % kSums] = Zero(V{});
    std::int64_t j = begin;
    for (; j + kChains * W <= end; j += kChains * W) {
#pragma GCC unroll 2
      for (int chain = 0; chain < kChains; ++chain) {
        AddDots<K, kRows>([&](int i) { return Load(x + i * d + j + chain * W); }, w + j + chain * W,
                          padded_d, sum[chain]);
      }
    }
    if (j < end) {
      AddDots<K, kRows>([&](int i) { return Load(x + i * d + j); }, w + j, padded_d, sum[0]);
    }
    if (whole < d && begin + kVectorsPerSegment * W >= padded_d) {
      AddDots<K, kRows>([&](int i) { return LoadTail(x + i * d, d); }, w + whole, padded_d,
                        sum[kChains - 1]);
    }
    if constexpr (kChains == 2) {
#pragma GCC unroll 16
      for (int i = 0; i < kSums; ++i) sum[0][i] = Add(sum[0][i], sum[1][i]);
    }
    double total[W];
    StoreWide(total, SumEach<kSums, W>(sum[0]));
    for (int t = 0; t < K; ++t) {
      for (int i = 0; i < kRows; ++i) {
        double& dot = dots[t * stride + i];
        dot = begin == 0 ? total[t * kRows + i] : dot + total[t * kRows + i];
      }
    }
  }
}

template <int K, int kRows, class LoadRow>
static void AddDots(LoadRow load, const C* w, std::int64_t padded_d, V* sum) {
  V row[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) row[i] = load(i);
#pragma GCC unroll 8
  for (int t = 0; t < K; ++t) {
    const V wt = Load(w + t * padded_d);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sum[t * kRows + i] = Fma(row[i], wt, sum[t * kRows + i]);
  }
}

static void WideGrad(std::int64_t k, const T* x, std::int64_t d, std::int64_t rows,
                     std::int64_t padded_d, const Tile<C, TY>& tile, C* grad) {
  switch (k) {
    case 1:
      return WideGradOf<1>(x, d, rows, padded_d, tile, grad);
    case 2:
      return WideGradOf<2>(x, d, rows, padded_d, tile, grad);
    case 3:
      return WideGradOf<3>(x, d, rows, padded_d, tile, grad);
    case 4:
      return WideGradOf<4>(x, d, rows, padded_d, tile, grad);
    case 5:
      return WideGradOf<5>(x, d, rows, padded_d, tile, grad);
    case 6:
      return WideGradOf<6>(x, d, rows, padded_d, tile, grad);
    case 7:
      return WideGradOf<7>(x, d, rows, padded_d, tile, grad);
    case 8:
      return WideGradOf<8>(x, d, rows, padded_d, tile, grad);
    default:
      return;
  }
}

template <int K>
static void WideGradOf(const T* x, std::int64_t d, std::int64_t rows, std::int64_t padded_d,
                       const Tile<C, TY>& tile, C* grad) {
  constexpr int kMost = Min(8, kAccumulators / K > 0 ? kAccumulators / K : 1);
  const std::int64_t whole = d / W;
  const std::int64_t blocks = (whole + kMost - 1) / kMost;
  std::int64_t v = 0;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t end = whole * (block + 1) / blocks;
    GradBlock<K, kMost>(static_cast<int>(end - v), x + v * W, d, rows, padded_d, tile,
                        grad + v * W);
    v = end;
  }
  if (whole * W < d) {
    Grad<K, 1>([&](std::int64_t i, int) { return LoadTail(x + i * d, d); }, rows, padded_d, tile,
               grad + whole * W);
  }
}

template <int K, int N>
static void GradBlock(int count, const T* x, std::int64_t d, std::int64_t rows,
                      std::int64_t padded_d, const Tile<C, TY>& tile, C* grad) {
  if constexpr (N > 0) {
    if (count < N) return GradBlock<K, N - 1>(count, x, d, rows, padded_d, tile, grad);
    Grad<K, N>([&](std::int64_t i, int v) { return Load(x + i * d + v * W); }, rows, padded_d, tile,
               grad);
  }
}

// grad[t][0 ... N·W) += Σᵢ c[t][i]·x[i][0 ... N·W).
template <int K, int N, class LoadX>
static void Grad(LoadX load, std::int64_t rows, std::int64_t padded_d, const Tile<C, TY>& tile,
                 C* grad) {
  V sum[K][N];
#pragma GCC unroll 32
  for (int i = 0; i < K * N; ++i) sum[i / N][i % N] = Zero(V{});
  for (std::int64_t i = 0; i < rows; ++i) {
    V row[N];
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) row[v] = load(i, v);
#pragma GCC unroll 8
    for (int t = 0; t < K; ++t) {
      const V c = Set(tile.c[t * tile.stride + i]);
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) sum[t][v] = Fma(c, row[v], sum[t][v]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < K; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      C* out = grad + t * padded_d + v * W;
      Store(out, Add(Load(out), sum[t][v]));
    }
  }
}
