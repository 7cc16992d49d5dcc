// One target, rows of up to kMaxVectors vectors: W rows at a time, from X to the gradient within
// registers. Included by few_targets.h.
//
// Up to W columns, W rows are transposed in registers: a lane is a row and none is wasted on
// padding. Wider rows are vectors along the row; the sums of the lanes of W rows are again one
// vector with a lane for each row, so that the residuals are the same code.

template <class T, class TY>
struct Fused {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));
  static constexpr int kMaxVectors = kVectorUnit ? 8 : 0;
  static constexpr int kMaxAcross = kVectorUnit ? W : kNarrow;
  // Neighbours of 16 bits stay together while rows are transposed and are split last: half the
  // shuffles, and bfloat16 splits by a shift and a mask.
  static constexpr bool kPairs = kVectorUnit && sizeof(T) == 2;

  static void Rows(const Problem& p, const Plan& plan, char* workspace, std::int64_t begin,
                   std::int64_t end, double* partial) {
    if (p.d <= kMaxAcross) {
      return RowsAcross<false>(p, begin, end, partial,
                               std::make_integer_sequence<int, kMaxAcross>{});
    }
    if constexpr (kVectorUnit) {
      static constexpr RowsFn kAlong[] = {RowsOf<Along<2>>, RowsOf<Along<3>>, RowsOf<Along<4>>,
                                          RowsOf<Along<5>>, RowsOf<Along<6>>, RowsOf<Along<7>>,
                                          RowsOf<Along<8>>};
      const C* w = reinterpret_cast<const C*>(workspace + plan.weights_offset);
      kAlong[(p.d + W - 1) / W - 2](p, w, begin, end, partial);
    }
  }

  // From the plan's copy of X.
  static void PackedRows(const Problem& p, const Plan& plan, const char* workspace,
                         std::int64_t begin, std::int64_t end, double* partial) {
    Problem packed = p;
    packed.x = workspace + plan.packed_offset;
    RowsAcross<true>(packed, begin, end, partial, std::make_integer_sequence<int, kMaxAcross>{});
  }

 private:
  using RowsFn = void (*)(const Problem& p, const C* w, std::int64_t begin, std::int64_t end,
                          double* partial);

  template <bool kPacked, int... kColumn>
  static void RowsAcross(const Problem& p, std::int64_t begin, std::int64_t end, double* partial,
                         std::integer_sequence<int, kColumn...>) {
    static constexpr RowsFn kTable[] = {RowsOf<Across<kColumn + 1, kPacked>>...};
    const C* w = static_cast<const C*>(p.w) + (p.intercept ? 1 : 0);
    kTable[p.d - 1](p, w, begin, end, partial);
  }

  static constexpr int kBeyond = kPairs ? 2 * W : W;

  // Rows' residuals from their dots: s r, and the sums. kLaneRows vectors of W rows; lane i of the
  // h-th is row i·kLaneRows + h. In C: y is subtracted before the dot is complete, so that what
  // cancels cancels without an error. Doubles for this were half of the work of two columns.
  struct Target {
    const TY* y;
    const TY* s;
    V bias;
    Sums sums;

    // What the dots of the rows from row i on are added to.
    template <int kLaneRows>
    [[gnu::always_inline]] void Start(std::int64_t i, V (&start)[kLaneRows]) const {
      if (y != nullptr) {
        LoadLanes(y + i, start);
#pragma GCC unroll 2
        for (int h = 0; h < kLaneRows; ++h) start[h] = Sub(bias, start[h]);
      } else {
#pragma GCC unroll 2
        for (int h = 0; h < kLaneRows; ++h) start[h] = bias;
      }
    }

    // Of the rows from row i on, `valid` of them; r: their dots, added to Start.
    template <int kLaneRows>
    [[gnu::always_inline]] void Residuals(const V (&r)[kLaneRows], std::int64_t i,
                                          std::int64_t valid, V (&c)[kLaneRows]) {
      if (s != nullptr) {
        LoadLanes(s + i, c);
#pragma GCC unroll 2
        for (int h = 0; h < kLaneRows; ++h) {
          const V row = Valid(r[h], h, kLaneRows, valid);
          c[h] = Mul(c[h], row);
          AddResiduals(c[h], row, sums);
        }
      } else {
#pragma GCC unroll 2
        for (int h = 0; h < kLaneRows; ++h) {
          c[h] = Valid(r[h], h, kLaneRows, valid);
          AddResiduals(c[h], sums);
        }
      }
    }

   private:
    // Of the h-th of lane_rows vectors, the lanes of the first `valid` rows; zeros elsewhere.
    [[gnu::always_inline]] static V Valid(V r, int h, int lane_rows, std::int64_t valid) {
      const std::int64_t lanes = (valid - h + lane_rows - 1) / lane_rows;
      return lanes < W ? KeepFirst(r, static_cast<int>(lanes)) : r;
    }

    static void LoadLanes(const TY* p, V (&v)[1]) { v[0] = Load(p); }
    [[gnu::always_inline]] static void LoadLanes(const TY* p, V (&v)[2]) {
      if constexpr (sizeof(TY) == 2) {
        Split(p, Load(reinterpret_cast<const C*>(p)), v[0], v[1]);
      } else {
        Unzip(Load(p), Load(p + W), v[0], v[1]);
      }
    }
  };

  // Blocks of rows whose sums stay in C; what is left at the end goes through zero-padded copies.
  template <class Layout>
  static void RowsOf(const Problem& p, const C* w, std::int64_t begin, std::int64_t end,
                     double* partial) {
    const T* x = static_cast<const T*>(p.x);
    const TY* const all_y = static_cast<const TY*>(p.y);
    const TY* const all_s = static_cast<const TY*>(p.sample_weight);
    const C bias = p.intercept ? *static_cast<const C*>(p.w) : C(0);
    Target target = {nullptr, nullptr, Set(bias), {}};
    alignas(64) double lanes[Layout::kSums * W] = {};
    Totals totals;
    constexpr int kGroup = Layout::kGroupRows;
    // Groups may read up to kBeyond elements beyond their rows.
    std::int64_t whole = begin + (end - begin) / kGroup * kGroup;
    if (whole > begin && whole * p.d + kBeyond > p.n * p.d) whole -= kGroup;
    for (std::int64_t row = begin; row < whole; row += Layout::kFlush) {
      const std::int64_t rows = Min(Layout::kFlush, whole - row);
      target.y = At(all_y, row);
      target.s = At(all_s, row);
      Layout::Block(x + row * p.d, p.d, rows, w, target, lanes);
      totals.Take(target.sums);
    }
    if (whole < end) {
      T x_tail[2 * kGroup * Layout::kMaxColumns + kBeyond];
      TY y_tail[2 * kGroup] = {}, s_tail[2 * kGroup] = {};
      const std::int64_t rows = end - whole, used = rows * p.d;
      for (std::int64_t i = 0; i < used; ++i) x_tail[i] = x[whole * p.d + i];
      for (std::int64_t i = used; i < RoundUp(rows, kGroup) * p.d + kBeyond; ++i) x_tail[i] = T{};
      for (std::int64_t i = 0; i < rows; ++i) {
        if (all_y != nullptr) y_tail[i] = all_y[whole + i];
        if (all_s != nullptr) s_tail[i] = all_s[whole + i];
      }
      target.y = all_y != nullptr ? y_tail : nullptr;
      target.s = all_s != nullptr ? s_tail : nullptr;
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
    // Pairs of an odd number of columns straddle rows: a lane is two of them. Not of 26 vectors and
    // more, most of them in memory meanwhile: 15 columns of bfloat16 came from beyond the caches at
    // 14 GB/s a core rather than 25, although from the second-level cache at 35 rather than 26.
    static constexpr bool kPaired = kPairs && (D % 2 == 0 || D < 13);
    static constexpr int kLaneRows = kPaired && D % 2 == 1 ? 2 : 1;
    static constexpr int kGroupRows = kLaneRows * W;
    // Whether a group is loaded before the one before it is added up, as far as registers suffice:
    // a tenth faster from the second-level cache. Not wider elements, bound by memory: 3 columns
    // of float32 took a tenth longer.
    static constexpr bool kOverlap = kPaired && D <= 6;
    // Groups summed side by side, to hide the latency of an add.
    static constexpr int kGroups = kOverlap ? 1 : D <= 1 ? 4 : D <= 3 ? 2 : 1;
    // Sums of a row, for the same reason: a step over 1000 packed rows takes 0.47 us rather than
    // 0.56 with 10 columns. The transposition of 13 to 15 leaves no register for a second. 16
    // columns of bfloat16 came from the second-level cache at 37 GB/s with one, at 48 with four.
    static constexpr int kDots = D < 4 || (!kPaired && D > 12 && D != W) ? 1 : D < 8 ? 2 : 4;

    // How far ahead rows are fetched: 8 KiB of X and y. 2 KiB ahead read 0.6-0.7 of what this
    // reads, and 16 to 32 KiB 0.82-0.9: what is fetched displaces what is in use.
    static constexpr int kRowsAhead = 8192 / (D * sizeof(T) + sizeof(TY)) / kGroupRows * kGroupRows;

    [[gnu::noinline]] static void Block(const T* x, std::int64_t, std::int64_t rows, const C* w,
                                        Target& outer, double* lanes) {
      Target target = outer;
      V weight[D], sum[kGroups][D];
#pragma GCC unroll 16
      for (int j = 0; j < D; ++j) weight[j] = Set(w[j]);
#pragma GCC unroll 32
      for (int i = 0; i < kGroups * D; ++i) sum[i / D][i % D] = Zero(V{});
      std::int64_t i = 0;
      if constexpr (kOverlap) {
        Group group = Begin(x, 0, weight, target);
        for (; i + kGroupRows < rows; i += kGroupRows) {
          const Group next = Begin(x + (i + kGroupRows) * D, i + kGroupRows, weight, target);
          End(group, i, kGroupRows, target, sum[0]);
          group = next;
        }
        End(group, i, rows - i, target, sum[0]);
      } else {
        for (; kGroups > 1 && i + kGroups * kGroupRows <= rows; i += kGroups * kGroupRows) {
#pragma GCC unroll 4
          for (int g = 0; g < kGroups; ++g) {
            const std::int64_t row = i + g * kGroupRows;
            End(Begin(x + row * D, row, weight, target), row, kGroupRows, target, sum[g]);
          }
        }
        for (; i < rows; i += kGroupRows) {
          End(Begin(x + i * D, i, weight, target), i, rows - i, target, sum[0]);
        }
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

    // kGroupRows rows; what is known of their residuals before sample weights.
    struct Group {
      V column[Max(kLaneRows * D, PowerOfTwo(D))];
      V r[kLaneRows];
    };

    [[gnu::always_inline]] static Group Begin(const T* x, std::int64_t i, const V* weight,
                                              const Target& target) {
      Group group;
      if constexpr (kPacked) {
#pragma GCC unroll 16
        for (int j = 0; j < D; ++j) group.column[j] = Load(x + j * W);
      } else {
        PrefetchAhead<D * kGroupRows * sizeof(T)>(x, kRowsAhead * D * sizeof(T));
        if (target.y != nullptr) {
          PrefetchAhead<kGroupRows * sizeof(TY)>(target.y + i, kRowsAhead * sizeof(TY));
        }
        if constexpr (kPaired) {
          constexpr int kLanePairs = kLaneRows * D / 2;
          V pair[PowerOfTwo(kLanePairs)];
          LoadColumns<kLanePairs>(reinterpret_cast<const C*>(x), pair);
#pragma GCC unroll 16
          for (int j = 0; j < kLanePairs; ++j) {
            Split(x, pair[j], group.column[2 * j], group.column[2 * j + 1]);
          }
        } else {
          LoadColumns<D>(x, group.column);
        }
      }
      V start[kLaneRows];
      target.Start(i, start);
#pragma GCC unroll 2
      for (int h = 0; h < kLaneRows; ++h) {
        group.r[h] = Dot(weight, group.column + h * D, start[h]);
      }
      return group;
    }

    [[gnu::always_inline]] static void End(const Group& group, std::int64_t i, std::int64_t valid,
                                           Target& target, V* sum) {
      V c[kLaneRows];
      target.Residuals(group.r, i, valid, c);
#pragma GCC unroll 2
      for (int h = 0; h < kLaneRows; ++h) {
#pragma GCC unroll 16
        for (int j = 0; j < D; ++j) sum[j] = Fma(c[h], group.column[h * D + j], sum[j]);
      }
    }

    // start + Σⱼ weight[j]·column[j]. Of several sums, `start` joins when they are complete: a sum
    // that begins as large as y rounds all the way.
    [[gnu::always_inline]] static V Dot(const V* weight, const V* column, V start) {
      V sum[kDots];
      sum[0] = kDots == 1 ? Fma(weight[0], column[0], start) : Mul(weight[0], column[0]);
#pragma GCC unroll 4
      for (int j = 1; j < kDots; ++j) sum[j] = Mul(weight[j], column[j]);
#pragma GCC unroll 16
      for (int j = kDots; j < D; ++j) {
        sum[j % kDots] = Fma(weight[j], column[j], sum[j % kDots]);
      }
      if constexpr (kDots == 1) return sum[0];
      if constexpr (kDots == 2) return Add(Add(sum[0], start), sum[1]);
      if constexpr (kDots == 4) return Add(Add(Add(sum[0], sum[1]), start), Add(sum[2], sum[3]));
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
    static constexpr int kGroupRows = W;
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
      V halves[2];
      HalfDots(x, d, weight, [](auto) {}, halves);
      StoreResiduals(halves, 0, rows, target, c);
      const auto add = [&](auto row) __attribute__((always_inline)) {
        const V cr = Set(c[row]);
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) {
          V& out = sum[row % kChains][v];
          out = Fma(cr, LoadVector(x + row * d, d, v), out);
        }
      };
      for (std::int64_t i = W; i < rows; i += W) {
        if (target.y != nullptr) PrefetchAhead<W * sizeof(TY)>(target.y + i, kAhead);
        HalfDots(x + W * d, d, weight, add, halves);
        StoreResiduals(halves, i, rows - i, target, c);
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

    // Of W rows, from the two halves of their dots. As in Across, y goes in between.
    [[gnu::always_inline]] static void StoreResiduals(const V (&halves)[2], std::int64_t i,
                                                      std::int64_t valid, Target& target, C* c) {
      V r[1], sr[1];
      target.Start(i, r);
      r[0] = Add(Add(halves[0], r[0]), halves[1]);
      target.Residuals(r, i, valid, sr);
      Store(c, sr[0]);
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

    // Lane i of the two halves: what add up to the dot of row i.
    template <class Meanwhile>
    [[gnu::always_inline]] static void HalfDots(const T* x, std::int64_t d, const V* weight,
                                                const Meanwhile& meanwhile, V (&halves)[2]) {
      const V first = Dots<0, W / 2>(x, d, weight, meanwhile);
      Unzip(first, Dots<W / 2, W / 2>(x, d, weight, meanwhile), halves[0], halves[1]);
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
