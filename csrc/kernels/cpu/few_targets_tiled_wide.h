// Tiles of rows of more than kNarrow columns. Included by few_targets_tiled.h.
//
// Each phase fetches half of the next tile, the dots its even rows and the gradient its odd ones,
// so that memory is never idle while a tile is used for the second time.

template <class T>
struct TiledWide {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));
  // Dots are summed in C over this many vectors, in double beyond.
  static constexpr std::int64_t kVectorsPerSegment = 256;

  template <class Residuals>
  static void Rows(const Problem& p, const Plan& plan, const T* x, const C* w, std::int64_t begin,
                   std::int64_t end, const Tile<C>& tile, double* slot_grad, Residuals residuals) {
    C* grad = reinterpret_cast<C*>(tile.rest);  // [k][padded_d]
    const std::int64_t size = p.k * plan.padded_d;
    for (std::int64_t i = 0; i < size; i += W) Store(grad + i, Zero(V{}));
    for (std::int64_t i = 0; i < size; i += 8) Store(slot_grad + i, Zero(F64x8{}));
    std::int64_t unflushed = 0;
    for (std::int64_t row = begin; row < end; row += plan.tile_rows) {
      const std::int64_t rows = Min(plan.tile_rows, end - row);
      DotsFor(p.k, x + row * p.d, p.d, rows, w, plan.padded_d, tile);
      residuals(row, rows);
      if (p.grad == nullptr) continue;
      GradFor(p.k, x + row * p.d, p.d, rows, plan.padded_d, tile, grad);
      unflushed += rows;
      if (unflushed >= kRowsPerFlush || row + rows == end) {
        for (std::int64_t i = 0; i < size; i += W) {
          AddWide(slot_grad + i, Load(grad + i));
          Store(grad + i, Zero(V{}));
        }
        unflushed = 0;
      }
    }
  }

 private:
  static void DotsFor(std::int64_t k, const T* x, std::int64_t d, std::int64_t rows, const C* w,
                      std::int64_t padded_d, const Tile<C>& tile) {
    using Fn = decltype(&DotsOf<1>);
    static constexpr Fn kTable[] = {DotsOf<1>, DotsOf<2>, DotsOf<3>, DotsOf<4>,
                                    DotsOf<5>, DotsOf<6>, DotsOf<7>, DotsOf<8>};
    kTable[k - 1](x, d, rows, w, padded_d, tile);
  }

  template <int K>
  static void DotsOf(const T* x, std::int64_t d, std::int64_t rows, const C* w,
                     std::int64_t padded_d, const Tile<C>& tile) {
    // Rows that share a load of w: as many as the registers and one SumEach take.
    constexpr int kRegisters = Min(kAccumulators, W) / (K == 1 ? 2 : 1);
    constexpr int kRows = kRegisters >= 8 * K   ? 8
                          : kRegisters >= 4 * K ? 4
                          : kRegisters >= 2 * K ? 2
                                                : 1;
    std::int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) {
      Dots<K, kRows>(x + row * d, d, w, padded_d, tile.dots + row, tile);
    }
    for (; row < rows; ++row) {
      Dots<K, 1>(x + row * d, d, w, padded_d, tile.dots + row, tile);
    }
  }

  // dots[t·tile.stride + i] = x[i]·w[t] for i < kRows. One target's rows are summed in two chains.
  template <int K, int kRows>
  static void Dots(const T* x, std::int64_t d, const C* w, std::int64_t padded_d, double* dots,
                   const Tile<C>& tile) {
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
#pragma GCC unroll 4
          for (int i = 0; i < kRows; i += 2) {
            PrefetchAhead<W * sizeof(T)>(x + i * d + j + chain * W, tile.ahead);
          }
          AddDots<K, kRows>([&](int i) { return Load(x + i * d + j + chain * W); },
                            w + j + chain * W, padded_d, sum[chain]);
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
          double& dot = dots[t * tile.stride + i];
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

  static void GradFor(std::int64_t k, const T* x, std::int64_t d, std::int64_t rows,
                      std::int64_t padded_d, const Tile<C>& tile, C* grad) {
    using Fn = decltype(&GradOf<1>);
    static constexpr Fn kTable[] = {GradOf<1>, GradOf<2>, GradOf<3>, GradOf<4>,
                                    GradOf<5>, GradOf<6>, GradOf<7>, GradOf<8>};
    kTable[k - 1](x, d, rows, padded_d, tile, grad);
  }

  template <int K>
  static void GradOf(const T* x, std::int64_t d, std::int64_t rows, std::int64_t padded_d,
                     const Tile<C>& tile, C* grad) {
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
                        std::int64_t padded_d, const Tile<C>& tile, C* grad) {
    if constexpr (N > 0) {
      if (count < N) return GradBlock<K, N - 1>(count, x, d, rows, padded_d, tile, grad);
      const auto load = [&](std::int64_t i, int v) {
        const T* from = x + i * d + v * W;
        if (i % 2 != 0) PrefetchAhead<W * sizeof(T)>(from, tile.ahead);
        return Load(from);
      };
      Grad<K, N>(load, rows, padded_d, tile, grad);
    }
  }

  // grad[t][0 ... N·W) += Σᵢ c[t][i]·x[i][0 ... N·W).
  template <int K, int N, class LoadX>
  static void Grad(LoadX load, std::int64_t rows, std::int64_t padded_d, const Tile<C>& tile,
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
};
