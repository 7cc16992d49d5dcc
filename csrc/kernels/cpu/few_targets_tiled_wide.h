// Tiles of rows of more than kNarrow columns. Included by few_targets_tiled.h.
//
// Each phase fetches half of the next tile, so that memory is never idle while a tile is used for
// the second time; line after line, whatever the order in which the phase uses this tile.

template <class T>
struct TiledWide {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));
  // A dot is a sum of sums over this many vectors.
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
      if (p.grad == nullptr) {
        const T* next = x + (row + rows) * p.d;
        for (std::int64_t i = rows * p.d / 2; i < rows * p.d; i += W) Fetch<1>(next + i);
        continue;
      }
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
  // Fetches N vectors at p, into the second-level cache too: that is where a tile that is wider
  // than the first finds them again.
  template <int N>
  [[gnu::always_inline]] static void Fetch(const T* p) {
#pragma GCC unroll 64
    for (int i = 0; i < N * W * static_cast<int>(sizeof(T)); i += 64) {
      Prefetch(reinterpret_cast<const char*>(p) + i);
    }
  }

  static void DotsFor(std::int64_t k, const T* x, std::int64_t d, std::int64_t rows, const C* w,
                      std::int64_t padded_d, const Tile<C>& tile) {
    if (k > 4) {
      return DotsOfEight<T>::Rows(x, d, rows, x + rows * d, w, k, tile.dots, tile.stride);
    }
    using Fn = decltype(&DotsOf<1>);
    static constexpr Fn kTable[] = {DotsOf<1>, DotsOf<2>, DotsOf<3>, DotsOf<4>};
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
    // Sums of lanes cost the same for any d, transposed rows as much as X has elements.
    if constexpr (K > 1 && kVectorUnit) {
      if (d <= kAcross * K) return DotsAcross<K>(x, d, rows, w, padded_d, tile);
    }
    std::int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) {
      Dots<K, kRows>(x + row * d, d, x + rows * d + row * d / 2, w, padded_d, tile.dots + row,
                     tile.stride);
    }
    for (; row < rows; ++row) {
      Dots<K, 1>(x + row * d, d, x + rows * d + row * d / 2, w, padded_d, tile.dots + row,
                 tile.stride);
    }
  }

  static constexpr int kAcross = 12;

  // W rows at a time, transposed: a lane is a row.
  template <int K>
  static void DotsAcross(const T* x, std::int64_t d, std::int64_t rows, const C* w,
                         std::int64_t padded_d, const Tile<C>& tile) {
    alignas(64) C columns[(kAcross * K + W) * W];
    for (std::int64_t row = 0; row < rows; row += W) {
      TransposeRows(x + row * d, d, Min<std::int64_t>(rows - row, W), x + rows * d + row * d / 2,
                    columns);
      V dot[K];
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) dot[t] = Zero(V{});
      for (std::int64_t j = 0; j < padded_d; ++j) {
        const V column = Load(columns + j * W);
#pragma GCC unroll 8
        for (int t = 0; t < K; ++t) dot[t] = Fma(column, Set(w[t * padded_d + j]), dot[t]);
      }
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) Store(tile.dots + t * tile.stride + row, dot[t]);
    }
  }

  // Lane i of columns[j] is x[i][j], positions of j as in the padded weights. From the last row on,
  // its copies.
  [[gnu::noinline]] static void TransposeRows(const T* x, std::int64_t d, std::int64_t rows,
                                              const T* next, C* columns) {
    const std::int64_t whole = d / W * W;
    const T* row[W];
    for (int i = 0; i < W; ++i) row[i] = x + Min<std::int64_t>(i, rows - 1) * d;
    const auto block = [&](std::int64_t j, auto load) __attribute__((always_inline)) {
      V v[W], column[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        if (i % 2 == 0) Fetch<1>(next + (j + i) * W / 2);
        v[i] = load(row[i]);
      }
      Deinterleave<W>(v, column);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) Store(columns + (j + i) * W, column[i]);
    };
    for (std::int64_t j = 0; j < whole; j += W) {
      block(j, [&](const T* p) { return Load(p + j); });
    }
    if (whole < d) block(whole, [&](const T* p) { return LoadTail(p, d); });
  }

  // dots[t·stride + i] = x[i]·w[t] for i < kRows. One target's rows are summed in two chains. Half
  // as much is fetched from `next` on.
  template <int K, int kRows>
  static void Dots(const T* x, std::int64_t d, const T* next, const C* w, std::int64_t padded_d,
                   C* dots, std::int64_t stride) {
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
          if constexpr (kRows > 1) Fetch<kRows / 2>(next + (j + chain * W) * (kRows / 2));
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
      alignas(64) C part[W];
      Store(part, SumEach<kSums, W>(sum[0]));
      for (int t = 0; t < K; ++t) {
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          C& dot = dots[t * stride + i];
          dot = begin == 0 ? part[t * kRows + i] : dot + part[t * kRows + i];
        }
      }
    }
  }

  template <int K, int kRows, class LoadRow>
  [[gnu::always_inline]] static void AddDots(LoadRow load, const C* w, std::int64_t padded_d,
                                             V* sum) {
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
    const T* next = x + rows * d + rows * d / 2;
    const auto load_tail = [&](std::int64_t i, int) { return LoadTail(x + i * d, d); };
    if (d <= W) return Grad<K, 1, Chains(K)>(load_tail, rows, next, padded_d, tile, grad);
    const std::int64_t whole = d / W;
    // Whether there are chains must not depend on kMost, which is the instruction set's.
    constexpr int kFew = 7 / K;
    if (whole <= kFew) {
      GradBlock<K, kFew, true>(static_cast<int>(whole), x, d, rows, next, padded_d, tile, grad);
    }
    const std::int64_t blocks = whole <= kFew ? 0 : (whole + kMost - 1) / kMost;
    std::int64_t v = 0;
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t end = whole * (block + 1) / blocks;
      GradBlock<K, kMost, false>(static_cast<int>(end - v), x + v * W, d, rows,
                                 next + v * W * rows / 2, padded_d, tile, grad + v * W);
      v = end;
    }
    if (whole * W < d) {
      Grad<K, 1, Chains(K)>(load_tail, rows, next + whole * W * rows / 2, padded_d, tile,
                            grad + whole * W);
    }
  }

  // Few sums are split into chains of rows, which wait less for one another.
  static constexpr int Chains(int sums) { return sums >= 8 ? 1 : sums >= 4 ? 2 : 4; }

  template <int K, int N, bool kChained>
  static void GradBlock(int count, const T* x, std::int64_t d, std::int64_t rows, const T* next,
                        std::int64_t padded_d, const Tile<C>& tile, C* grad) {
    if constexpr (N > 0) {
      if (count < N)
        return GradBlock<K, N - 1, kChained>(count, x, d, rows, next, padded_d, tile, grad);
      const auto load = [&](std::int64_t i, int v) { return Load(x + i * d + v * W); };
      Grad<K, N, kChained ? Chains(K * N) : 1>(load, rows, next, padded_d, tile, grad);
    }
  }

  // grad[t][0 ... N·W) += Σᵢ c[t][i]·x[i][0 ... N·W). Half as much as x has is fetched from `next`
  // on.
  template <int K, int N, int kChains, class LoadX>
  static void Grad(LoadX load, std::int64_t rows, const T* next, std::int64_t padded_d,
                   const Tile<C>& tile, C* grad) {
    V sum[kChains][K][N];
#pragma GCC unroll 32
    for (int i = 0; i < kChains * K * N; ++i) sum[i / (K * N)][i / N % K][i % N] = Zero(V{});
    const auto add = [&](std::int64_t i, int chain) __attribute__((always_inline)) {
      if (i % 2 != 0) Fetch<N>(next + i / 2 * N * W);
      V row[N];
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) row[v] = load(i, v);
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) {
        const V c = Set(tile.c[t * tile.stride + i]);
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) sum[chain][t][v] = Fma(c, row[v], sum[chain][t][v]);
      }
    };
    std::int64_t i = 0;
    for (; i + kChains <= rows; i += kChains) {
#pragma GCC unroll 4
      for (int chain = 0; chain < kChains; ++chain) add(i + chain, chain);
    }
    for (; kChains > 1 && i < rows; ++i) add(i, 0);
#pragma GCC unroll 8
    for (int t = 0; t < K; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        V total = sum[0][t][v];
        if constexpr (kChains >= 2) total = Add(total, sum[1][t][v]);
        if constexpr (kChains == 4) total = Add(total, Add(sum[2][t][v], sum[3][t][v]));
        C* out = grad + t * padded_d + v * W;
        Store(out, Add(Load(out), total));
      }
    }
  }
};
