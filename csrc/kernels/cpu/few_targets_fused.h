// One target, rows of up to kMaxVectors vectors: W rows at a time, from X to the gradient within
// registers. Included by few_targets.h.
//
// Up to W columns, W rows are transposed in registers: a lane is a row and none is wasted on
// padding. Wider rows are vectors along the row; the sums of the lanes of W rows are again one
// vector with a lane for each row, so that the residuals are the same code.

template <class T>
struct Fused {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));
  static constexpr int kMaxVectors = kVectorUnit ? 8 : 0;
  static constexpr int kMaxAcross = kVectorUnit ? W : kNarrow;

  static void Rows(const Problem& p, const Plan& plan, char* workspace, const Inputs<C>& inputs,
                   std::int64_t begin, std::int64_t end, double* partial) {
    if (p.d <= kMaxAcross) {
      return RowsAcross<false>(p, inputs, begin, end, partial,
                               std::make_integer_sequence<int, kMaxAcross>{});
    }
    if constexpr (kVectorUnit) {
      static constexpr RowsFn kAlong[] = {RowsOf<Along<2>>, RowsOf<Along<3>>, RowsOf<Along<4>>,
                                          RowsOf<Along<5>>, RowsOf<Along<6>>, RowsOf<Along<7>>,
                                          RowsOf<Along<8>>};
      const C* w = reinterpret_cast<const C*>(workspace + plan.weights_offset);
      kAlong[(p.d + W - 1) / W - 2](p, w, inputs, begin, end, partial);
    }
  }

  // From the plan's copy of X.
  static void PackedRows(const Problem& p, const Plan& plan, const char* workspace,
                         const Inputs<C>& inputs, std::int64_t begin, std::int64_t end,
                         double* partial) {
    Problem packed = p;
    packed.x = workspace + plan.packed_offset;
    RowsAcross<true>(packed, inputs, begin, end, partial,
                     std::make_integer_sequence<int, kMaxAcross>{});
  }

 private:
  using RowsFn = void (*)(const Problem& p, const C* w, const Inputs<C>& inputs, std::int64_t begin,
                          std::int64_t end, double* partial);

  template <bool kPacked, int... kColumn>
  static void RowsAcross(const Problem& p, const Inputs<C>& inputs, std::int64_t begin,
                         std::int64_t end, double* partial,
                         std::integer_sequence<int, kColumn...>) {
    static constexpr RowsFn kTable[] = {RowsOf<Across<kColumn + 1, kPacked>>...};
    const C* w = static_cast<const C*>(p.w) + (p.intercept ? 1 : 0);
    kTable[p.d - 1](p, w, inputs, begin, end, partial);
  }

  // How far ahead X is fetched. 2 KiB ahead read 0.6-0.7 of what this reads; beyond, what is
  // fetched displaces what is in use.
  static constexpr int kAhead = 16384;

  // W rows' residuals from their dots: s r, and the sums.
  struct Target {
    const C* y;
    const C* s;
    F64x8 bias;
    Sums sums;

    [[gnu::always_inline]] V Residuals(F32x16 dot, std::int64_t i, std::int64_t valid) {
      const F64x8 low = Residual(Low(dot), bias, At(y, i), At(s, i), valid, 0, sums);
      const F64x8 high = Residual(High(dot), bias, At(y, i + 8), At(s, i + 8), valid - 8, 1, sums);
      return Round(low, high);
    }
    [[gnu::always_inline]] V Residuals(F64x8 dot, std::int64_t i, std::int64_t valid) {
      return Residual(dot, bias, At(y, i), At(s, i), valid, 0, sums);
    }
  };

  // Blocks of rows whose sums stay in C; what is left at the end goes through zero-padded copies.
  template <class Layout>
  static void RowsOf(const Problem& p, const C* w, const Inputs<C>& inputs, std::int64_t begin,
                     std::int64_t end, double* partial) {
    const T* x = static_cast<const T*>(p.x);
    C y_buffer[Layout::kFlush], s_buffer[Layout::kFlush];
    Target target = {nullptr,
                     nullptr,
                     Set(p.intercept ? static_cast<double>(*static_cast<const C*>(p.w)) : 0.0),
                     {}};
    alignas(64) double lanes[Layout::kSums * W] = {};
    Totals totals;
    // Groups may read up to W elements beyond their rows.
    std::int64_t whole = begin + (end - begin) / W * W;
    if (whole > begin && whole * p.d + W > p.n * p.d) whole -= W;
    for (std::int64_t row = begin; row < whole; row += Layout::kFlush) {
      const std::int64_t rows = Min(Layout::kFlush, whole - row);
      target.y = inputs.column(p.y, row, rows, y_buffer);
      target.s = inputs.column(p.sample_weight, row, rows, s_buffer);
      Layout::Block(x + row * p.d, p.d, rows, w, target, lanes);
      totals.Take(target.sums);
    }
    if (whole < end) {
      T x_tail[(2 * Layout::kMaxColumns + 1) * W];
      C y_tail[2 * W] = {}, s_tail[2 * W] = {};
      const std::int64_t rows = end - whole, used = rows * p.d;
      for (std::int64_t i = 0; i < used; ++i) x_tail[i] = x[whole * p.d + i];
      for (std::int64_t i = used; i < RoundUp(rows, W) * p.d + W; ++i) x_tail[i] = T{};
      const C* y = inputs.column(p.y, whole, rows, y_buffer);
      const C* s = inputs.column(p.sample_weight, whole, rows, s_buffer);
      for (std::int64_t i = 0; i < rows; ++i) {
        if (y != nullptr) y_tail[i] = y[i];
        if (s != nullptr) s_tail[i] = s[i];
      }
      target.y = y != nullptr ? y_tail : nullptr;
      target.s = s != nullptr ? s_tail : nullptr;
      Layout::Block(Layout::kIsPacked ? x + whole * p.d : x_tail, p.d, rows, w, target, lanes);
      totals.Take(target.sums);
    }
    partial[0] = Value(totals.loss);
    partial[1] = Value(totals.bias);
    Layout::Finish(lanes, partial + 8);
  }

  // A lane is a row, for D columns; kPacked: of transposed rows, with the same bits.
  template <int D, bool kPacked = false>
  struct Across {
    static constexpr bool kIsPacked = kPacked;
    static constexpr int kMaxColumns = D;
    static constexpr int kSums = D;
    static constexpr std::int64_t kFlush = 32 * W;
    // Groups of W rows summed side by side, to hide the latency of an add.
    static constexpr int kGroups = D <= 1 ? 4 : D <= 3 ? 2 : 1;
    // Sums of a row, for the same reason: a step over 1000 packed rows takes 0.47 us rather than
    // 0.56 with 10 columns. The transposition of 13 to 15 leaves no register for a second.
    static constexpr int kDots = D >= 4 && (D <= 12 || D == W) ? 2 : 1;

    [[gnu::noinline]] static void Block(const T* x, std::int64_t, std::int64_t rows, const C* w,
                                        Target& outer, double* lanes) {
      Target target = outer;
      V weight[D], sum[kGroups][D];
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) weight[j] = Set(w[j]);
#pragma GCC unroll 32
      for (int i = 0; i < kGroups * D; ++i) sum[i / D][i % D] = Zero(V{});
      std::int64_t i = 0;
      if constexpr (kGroups > 1) {
        for (; i + kGroups * W <= rows; i += kGroups * W) {
#pragma GCC unroll 4
          for (int g = 0; g < kGroups; ++g) {
            Group(x + (i + g * W) * D, i + g * W, W, weight, target, sum[g]);
          }
        }
      }
      for (; i < rows; i += W) {
        Group(x + i * D, i, rows - i, weight, target, sum[0]);
      }
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) {
        V total = sum[0][j];
        if constexpr (kGroups == 2) total = Add(total, sum[1][j]);
        if constexpr (kGroups == 4) {
          total = Add(Add(total, sum[1][j]), Add(sum[2][j], sum[3][j]));
        }
        AddWide(lanes + j * W, total);
      }
      outer.sums = target.sums;
    }

    [[gnu::always_inline]] static void Group(const T* x, std::int64_t i, std::int64_t valid,
                                             const V* weight, Target& target, V* sum) {
      V column[PowerOfTwo(D)];
      if constexpr (kPacked) {
#pragma GCC unroll 16
        for (int j = 0; j < D; ++j) column[j] = Load(x + j * W);
      } else {
        PrefetchAhead<D * W * sizeof(T)>(x, kAhead);
        if (target.y != nullptr) PrefetchAhead<W * sizeof(C)>(target.y + i, kAhead);
        LoadColumns<D>(x, column);
      }
      V dot[kDots];
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) {
        V& part = dot[j % kDots];
        part = j < kDots ? Mul(weight[j], column[j]) : Fma(weight[j], column[j], part);
      }
      const V c = target.Residuals(kDots == 2 ? Add(dot[0], dot[1]) : dot[0], i, valid);
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) sum[j] = Fma(c, column[j], sum[j]);
    }

    static void Finish(const double* lanes, double* grad) {
      constexpr int kPadded = D <= kNarrow ? kNarrow : static_cast<int>(RoundUp(D, W));
      for (int j = 0; j < kPadded; ++j) {
        const std::int64_t column = D <= kNarrow ? (j < D ? j : -1) : ColumnOf<W>(D, j);
        grad[j] = column < 0 ? 0 : SumLanes(static_cast<const C*>(nullptr), lanes + column * W);
      }
    }
  };

  // A lane is a column, for rows of N vectors, the last one possibly short.
  template <int N>
  struct Along {
    static constexpr bool kIsPacked = false;
    static constexpr int kMaxColumns = N * W;
    static constexpr int kSums = N;
    static constexpr std::int64_t kFlush = kRowsPerFlush;
    static constexpr int kChains = N == 1 ? 4 : N <= 3 ? 2 : 1;
    // Of 64 columns of float32, 8 KiB ahead and 16 read 0.82 and 0.80 of one core's bandwidth.
    static constexpr int kAhead = 8192;

    [[gnu::noinline]] static void Block(const T* x, std::int64_t d, std::int64_t rows, const C* w,
                                        Target& outer, double* lanes) {
      Target target = outer;
      V weight[N], sum[kChains][N];
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) weight[v] = Load(w + v * W);
#pragma GCC unroll 8
      for (int i = 0; i < kChains * N; ++i) sum[i / N][i % N] = Zero(V{});
      // The gradient of one group of rows is summed between the dots of the next, so that reading
      // and fetching go on evenly and nothing waits for the residuals.
      alignas(64) C c[W];
      Store(c, target.Residuals(Dots<0, W>(x, d, weight, [](auto) {}), 0, rows));
      const auto add = [&](auto row) __attribute__((always_inline)) {
        const V cr = Set(c[row]);
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) {
          V& out = sum[row % kChains][v];
          out = Fma(cr, LoadVector(x + row * d, d, v), out);
        }
      };
      for (std::int64_t i = W; i < rows; i += W) {
        if (target.y != nullptr) PrefetchAhead<W * sizeof(C)>(target.y + i, kAhead);
        const V dots = Dots<0, W>(x + W * d, d, weight, add);
        Store(c, target.Residuals(dots, i, rows - i));
        x += W * d;
      }
      ForEachRow(add, std::make_integer_sequence<int, W>{});
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        V total = sum[0][v];
        if constexpr (kChains == 2) total = Add(total, sum[1][v]);
        if constexpr (kChains == 4) {
          total = Add(Add(total, sum[1][v]), Add(sum[2][v], sum[3][v]));
        }
        AddWide(lanes + v * W, total);
      }
      outer.sums = target.sums;
    }

    [[gnu::always_inline]] static V LoadVector(const T* row, std::int64_t d, int v) {
      if (v < N - 1) return Load(row + v * W);
      return LoadTail(row, d);
    }

    template <class Body, int... kRow>
    [[gnu::always_inline]] static void ForEachRow(const Body& body,
                                                  std::integer_sequence<int, kRow...>) {
      (body(std::integral_constant<int, kRow>{}), ...);
    }

    // Lane i of the result: the dot of row kFirst + i % kRows, of W / kRows partial sums; depth
    // first, so that few vectors are alive. Calls meanwhile(row) once for every row.
    template <int kFirst, int kRows, class Meanwhile>
    [[gnu::always_inline]] static V Dots(const T* x, std::int64_t d, const V* weight,
                                         const Meanwhile& meanwhile) {
      if constexpr (kRows == 1) {
        const T* row = x + kFirst * d;
        PrefetchAhead<N * W * sizeof(T)>(row, kAhead);
        V dot = Mul(weight[0], LoadVector(row, d, 0));
#pragma GCC unroll 8
        for (int v = 1; v < N; ++v) dot = Fma(weight[v], LoadVector(row, d, v), dot);
        meanwhile(std::integral_constant<int, kFirst>{});
        return dot;
      } else {
        const V first = Dots<kFirst, kRows / 2>(x, d, weight, meanwhile);
        return AddPairs(first, Dots<kFirst + kRows / 2, kRows / 2>(x, d, weight, meanwhile));
      }
    }

    static void Finish(const double* lanes, double* grad) {
      for (int j = 0; j < N * W; ++j) grad[j] = lanes[j];
    }
  };
};
