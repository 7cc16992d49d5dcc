// One to four targets, rows of more vectors than few_targets_fused.h takes. Included by
// few_targets.h.
//
// Rows go in groups of kRows. While the dots of one group are summed, row after row, X coming from
// memory in one unbroken sequence, the group before, still in the first-level cache, is added to
// the gradient, a vector of columns at a time. With a phase for each, memory idles in the second:
// 0.67-0.75 of the bandwidth instead of 0.80-0.85, one core. Rows for which the second use would
// come from the second-level cache gain nothing this way.

template <class T, int K>
class Rolling {
 public:
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));

  // Sums over lanes are made for every group of rows, so that more targets need longer rows for
  // this to be faster than tiles: by a tenth with two to four.
  static bool Takes(std::int64_t d, std::int64_t k) {
    return d >= 8 * W * (k - 1) && d > 0 && d <= 64 * W;
  }

  static void Rows(const Problem& p, const Plan& plan, char* workspace, const Inputs<C>& inputs,
                   std::int64_t begin, std::int64_t end, double* partial, int worker) {
    Rolling self(p, plan, workspace, inputs, partial, worker);
    constexpr std::int64_t kGroupBytes = 16 << 10;
    if (p.d * std::int64_t{8 * sizeof(T)} <= kGroupBytes) {
      self.template Groups<kMostRows>(begin, end);
    } else {
      self.template Groups<4>(begin, end);
    }
    for (int t = 0; t < K; ++t) {
      partial[t] = Value(self.totals_[t].loss);
      partial[K + t] = Value(self.totals_[t].bias);
    }
  }

 private:
  // 4 KiB ahead is too little for d = 100 (0.75 of the bandwidth), 16 KiB too much for d = 1000
  // (0.72).
  static constexpr int kAhead = 8192;
  static constexpr int kChains = K == 1 ? 4 : 2;    // of a row's dot with one target
  static constexpr int kMostRows = K <= 2 ? 8 : 4;  // whose residuals fit in registers

  const Problem& p_;
  const std::int64_t d_, whole_;  // columns, whole vectors of them
  const std::int64_t padded_d_;
  const Inputs<C>& inputs_;
  const C* const w_;
  C* const grad_;
  double* const slot_grad_;
  F64x8 bias_[K];
  Sums sums_[K];
  Totals totals_[K];

  Rolling(const Problem& p, const Plan& plan, char* workspace, const Inputs<C>& inputs,
          double* partial, int worker)
      : p_(p),
        d_(p.d),
        whole_(p.d / W),
        padded_d_(plan.padded_d),
        inputs_(inputs),
        w_(reinterpret_cast<const C*>(workspace + plan.weights_offset)),
        grad_(reinterpret_cast<C*>(workspace + plan.scratch_offset + worker * plan.scratch_bytes)),
        slot_grad_(partial + RoundUp(2 * K, 8)) {
    const C* bias = static_cast<const C*>(p.w);
    for (int t = 0; t < K; ++t) {
      bias_[t] = Set(p.intercept ? static_cast<double>(bias[t]) : 0.0);
    }
    for (std::int64_t j = 0; j < K * padded_d_; j += W) Store(grad_ + j, Zero(V{}));
    for (std::int64_t j = 0; j < K * padded_d_; j += 8) Store(slot_grad_ + j, Zero(F64x8{}));
  }

  // A block of rows after the other, its sums in C; then on in double.
  template <int kRows>
  void Groups(std::int64_t begin, std::int64_t end) {
    C y_buffer[K * kRowsPerFlush], s_buffer[kRowsPerFlush];
    for (std::int64_t block = begin; block < end; block += kRowsPerFlush) {
      const std::int64_t rows = Min(kRowsPerFlush, end - block);
      const C* y = y_buffer;
      if (K == 1 || p_.y == nullptr) {
        y = inputs_.column(p_.y, block, rows, y_buffer);
      } else {
        inputs_.transpose(p_.y, block, rows, K, y_buffer, kRowsPerFlush);
      }
      const C* s = inputs_.column(p_.sample_weight, block, rows, s_buffer);
      const T* x = static_cast<const T*>(p_.x) + block * d_;
      alignas(64) C c[K * 8];  // [K][8]
      F64x8 dots[K];
      std::int64_t i = 0;
      if (rows >= kRows) {
        Pass<kRows, true, false>(x, nullptr, c, dots);
        Residuals(dots, y, s, 0, kRows, c);
        for (i = kRows; i + kRows <= rows; i += kRows) {
          const T* group = x + i * d_;
          Pass<kRows, true, true>(group, group - kRows * d_, c, dots);
          Residuals(dots, y, s, i, kRows, c);
        }
        Pass<kRows, false, true>(nullptr, x + (i - kRows) * d_, c, nullptr);
      }
      for (; i < rows; ++i) {
        Pass<1, true, false>(x + i * d_, nullptr, c, dots);
        Residuals(dots, y, s, i, 1, c);
        Pass<1, false, true>(nullptr, x + i * d_, c, nullptr);
      }
      for (int t = 0; t < K; ++t) totals_[t].Take(sums_[t]);
      for (std::int64_t j = 0; j < K * padded_d_; j += W) {
        AddWide(slot_grad_ + j, Load(grad_ + j));
        Store(grad_ + j, Zero(V{}));
      }
    }
  }

  // From the dots of up to 8 rows, the first of them row i of y and s.
  void Residuals(const F64x8* dots, const C* y, const C* s, std::int64_t i, int rows, C* c) {
    C s_group[8] = {};
    for (int row = 0; s != nullptr && row < rows; ++row) s_group[row] = s[i + row];
#pragma GCC unroll 4
    for (int t = 0; t < K; ++t) {
      C y_group[8] = {};
      for (int row = 0; y != nullptr && row < rows; ++row) {
        y_group[row] = y[t * kRowsPerFlush + i + row];
      }
      StoreF64(c + t * 8, Residual(dots[t], bias_[t], y != nullptr ? y_group : nullptr,
                                   s != nullptr ? s_group : nullptr, rows, sums_[t]));
    }
  }

  // The dots of kRows rows at x; meanwhile the gradient of those at `before`, of residuals c.
  template <int kRows, bool kDots, bool kGrad>
  [[gnu::noinline]] void Pass(const T* x, const T* before, const C* c, F64x8* dots) {
    V residual[K][kRows], total[K][kRows];
#pragma GCC unroll 16
    for (int i = 0; i < K * kRows; ++i) {
      residual[i / kRows][i % kRows] = kGrad ? Set(c[i / kRows * 8 + i % kRows]) : Zero(V{});
    }
    for (int row = 0; row < kRows; ++row) {
      V sum[K];
      Row<kRows, kDots, kGrad>(kDots ? x + row * d_ : nullptr, before, row, residual, sum);
#pragma GCC unroll 4
      for (int t = 0; t < K; ++t) total[t][row] = sum[t];
    }
    if (kGrad && whole_ * W < d_) {
      AddColumns<kRows>([&](int i) { return LoadTail(before + i * d_, d_); }, whole_, residual);
    }
    if constexpr (kDots) {
#pragma GCC unroll 4
      for (int t = 0; t < K; ++t) {
        double lanes[W];
        StoreWide(lanes, SumEach<kRows, W>(total[t]));
        dots[t] = KeepFirst(Load(lanes), kRows);
      }
    }
  }

  // The dots of one row, lane by lane. Of the gradient's vectors it adds those that are its turn.
  template <int kRows, bool kDots, bool kGrad>
  [[gnu::always_inline]] void Row(const T* x, const T* before, int row, const V (*residual)[kRows],
                                  V* total) {
    constexpr int kStep = kRows > kChains ? kRows : kChains;  // vectors of the row
    constexpr int kColumns = kStep / kRows;                   // and of the gradient in a step
    V sum[kChains][K];
#pragma GCC unroll 8
    for (int i = 0; i < kChains * K; ++i) sum[i / K][i % K] = Zero(V{});
    const auto multiply = [&](V xv, std::int64_t v, int chain) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int t = 0; t < K; ++t) {
        sum[chain][t] = Fma(xv, Load(w_ + t * padded_d_ + v * W), sum[chain][t]);
      }
    };
    const auto dot = [&](std::int64_t v, int chain) __attribute__((always_inline)) {
      if constexpr (kDots) {
        PrefetchAhead<W * sizeof(T)>(x + v * W, kAhead);
        multiply(Load(x + v * W), v, chain);
      }
    };
    const auto add = [&](std::int64_t v) __attribute__((always_inline)) {
      if constexpr (kGrad) {
        AddColumns<kRows>([&](int i) { return Load(before + i * d_ + v * W); }, v, residual);
      }
    };
    const std::int64_t steps = (whole_ + kStep - 1) / kStep;
    std::int64_t v = 0, column = row * steps * kColumns;
    for (; v + kStep <= whole_ && column + kColumns <= whole_; v += kStep, column += kColumns) {
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) dot(v + i, i % kChains);
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; ++i) add(column + i);
    }
    for (; v < whole_; v += kStep, column += kColumns) {
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) {
        if (v + i < whole_) dot(v + i, i % kChains);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; ++i) {
        if (column + i < whole_) add(column + i);
      }
    }
    if (kDots && whole_ * W < d_) {
      PrefetchAhead<W * sizeof(T)>(x + whole_ * W, kAhead);
      multiply(LoadTail(x, d_), whole_, 0);
    }
#pragma GCC unroll 4
    for (int t = 0; t < K; ++t) {
      total[t] = Add(sum[0][t], sum[1][t]);
      if constexpr (kChains == 4) total[t] = Add(total[t], Add(sum[2][t], sum[3][t]));
    }
  }

  // Vector v of each target's gradient += Σᵢ residual[i]·load(i).
  template <int kRows, class LoadX>
  [[gnu::always_inline]] void AddColumns(LoadX load, std::int64_t v, const V (*residual)[kRows]) {
    V sum[K];
#pragma GCC unroll 4
    for (int t = 0; t < K; ++t) sum[t] = Load(grad_ + t * padded_d_ + v * W);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const V row = load(i);
#pragma GCC unroll 4
      for (int t = 0; t < K; ++t) sum[t] = Fma(residual[t][i], row, sum[t]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < K; ++t) Store(grad_ + t * padded_d_ + v * W, sum[t]);
  }
};
