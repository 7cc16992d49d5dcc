// One target, rows of more vectors than few_targets_fused.h takes, up to kMaxVectors. Included by
// few_targets.h.
//
// Rows go in groups of kRows. While the dots of one group are summed, row after row, X coming from
// memory in one unbroken sequence, the group before, still in the first-level cache, is added to
// the gradient, a vector of columns at a time. With a phase for each, memory idles in the second:
// 0.67-0.75 of the bandwidth instead of 0.80-0.85, one core. Rows for which the second use would
// come from the second-level cache gain nothing this way.

template <class T>
class Rolling {
 public:
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));
  static constexpr int kMaxVectors = 64;

  static void Rows(const Problem& p, const Plan& plan, char* workspace, const Inputs<C>& inputs,
                   std::int64_t begin, std::int64_t end, double* partial, int worker) {
    Rolling self(p, plan, workspace, inputs, partial, worker);
    constexpr std::int64_t kGroupBytes = 16 << 10;
    if (p.d * std::int64_t{8 * sizeof(T)} <= kGroupBytes) {
      self.Groups<8>(begin, end);
    } else {
      self.Groups<4>(begin, end);
    }
    partial[0] = Value(self.totals_.loss);
    partial[1] = Value(self.totals_.bias);
  }

 private:
  // 4 KiB ahead is too little for d = 100 (0.75 of the bandwidth), 16 KiB too much for d = 1000
  // (0.72).
  static constexpr int kAhead = 8192;
  static constexpr int kChains = 4;

  const Problem& p_;
  const std::int64_t d_, whole_;  // columns, whole vectors of them
  const std::int64_t padded_d_;
  const Inputs<C>& inputs_;
  const C* const w_;
  C* const grad_;
  double* const slot_grad_;
  const F64x8 bias_;
  Sums sums_;
  Totals totals_;

  Rolling(const Problem& p, const Plan& plan, char* workspace, const Inputs<C>& inputs,
          double* partial, int worker)
      : p_(p),
        d_(p.d),
        whole_(p.d / W),
        padded_d_(plan.padded_d),
        inputs_(inputs),
        w_(reinterpret_cast<const C*>(workspace + plan.weights_offset)),
        grad_(reinterpret_cast<C*>(workspace + plan.scratch_offset + worker * plan.scratch_bytes)),
        slot_grad_(partial + 8),
        bias_(Set(p.intercept ? static_cast<double>(*static_cast<const C*>(p.w)) : 0.0)) {
    for (std::int64_t j = 0; j < padded_d_; j += W) Store(grad_ + j, Zero(V{}));
    for (std::int64_t j = 0; j < padded_d_; j += 8) Store(slot_grad_ + j, Zero(F64x8{}));
  }

  // A block of rows after the other, its sums in C; then on in double.
  template <int kRows>
  void Groups(std::int64_t begin, std::int64_t end) {
    C y_buffer[kRowsPerFlush], s_buffer[kRowsPerFlush];
    for (std::int64_t block = begin; block < end; block += kRowsPerFlush) {
      const std::int64_t rows = Min(kRowsPerFlush, end - block);
      const C* y = inputs_.column(p_.y, block, rows, y_buffer);
      const C* s = inputs_.column(p_.sample_weight, block, rows, s_buffer);
      const T* x = static_cast<const T*>(p_.x) + block * d_;
      alignas(64) C c[8];
      std::int64_t i = 0;
      if (rows >= kRows) {
        Residuals(Pass<kRows, true, false>(x, nullptr, c), y, s, 0, kRows, c);
        for (i = kRows; i + kRows <= rows; i += kRows) {
          const T* group = x + i * d_;
          Residuals(Pass<kRows, true, true>(group, group - kRows * d_, c), y, s, i, kRows, c);
        }
        Pass<kRows, false, true>(nullptr, x + (i - kRows) * d_, c);
      }
      for (; i < rows; ++i) {
        Residuals(Pass<1, true, false>(x + i * d_, nullptr, c), y, s, i, 1, c);
        Pass<1, false, true>(nullptr, x + i * d_, c);
      }
      totals_.Take(sums_);
      for (std::int64_t j = 0; j < padded_d_; j += W) {
        AddWide(slot_grad_ + j, Load(grad_ + j));
        Store(grad_ + j, Zero(V{}));
      }
    }
  }

  // From the dots of up to 8 rows, the first of them row i of y and s.
  void Residuals(F64x8 dots, const C* y, const C* s, std::int64_t i, int rows, C* c) {
    C y_group[8] = {}, s_group[8] = {};
    for (int row = 0; row < rows; ++row) {
      if (y != nullptr) y_group[row] = y[i + row];
      if (s != nullptr) s_group[row] = s[i + row];
    }
    StoreF64(c, Residual(dots, bias_, y != nullptr ? y_group : nullptr,
                         s != nullptr ? s_group : nullptr, rows, 0, sums_));
  }

  // The dots of kRows rows at x; meanwhile the gradient of those at `before`, of residuals c.
  template <int kRows, bool kDots, bool kGrad>
  [[gnu::noinline]] F64x8 Pass(const T* x, const T* before, const C* c) {
    V residual[kRows], total[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) residual[i] = kGrad ? Set(c[i]) : Zero(V{});
    for (int row = 0; row < kRows; ++row) {
      total[row] = Row<kRows, kDots, kGrad>(kDots ? x + row * d_ : nullptr, before, row, residual);
    }
    if (kGrad && whole_ * W < d_) {
      AddColumns<kRows>([&](int i) { return LoadTail(before + i * d_, d_); }, whole_, residual);
    }
    if constexpr (kDots) {
      double dots[W];
      StoreWide(dots, SumEach<kRows, W>(total));
      return KeepFirst(Load(dots), kRows);
    } else {
      return Zero(F64x8{});
    }
  }

  // The dot of one row, lane by lane. Of the gradient's vectors it adds those that are its turn.
  template <int kRows, bool kDots, bool kGrad>
  [[gnu::always_inline]] V Row(const T* x, const T* before, int row, const V* residual) {
    constexpr int kStep = kRows > kChains ? kRows : kChains;  // vectors of the row
    constexpr int kColumns = kStep / kRows;                   // and of the gradient in a step
    const auto dot = [&](std::int64_t v, V& sum) __attribute__((always_inline)) {
      if constexpr (kDots) {
        PrefetchAhead<W * sizeof(T)>(x + v * W, kAhead);
        sum = Fma(Load(x + v * W), Load(w_ + v * W), sum);
      }
    };
    const auto add = [&](std::int64_t v) __attribute__((always_inline)) {
      if constexpr (kGrad) {
        AddColumns<kRows>([&](int i) { return Load(before + i * d_ + v * W); }, v, residual);
      }
    };
    V sum[kChains];
#pragma GCC unroll 4
    for (int i = 0; i < kChains; ++i) sum[i] = Zero(V{});
    const std::int64_t steps = (whole_ + kStep - 1) / kStep;
    std::int64_t v = 0, column = row * steps * kColumns;
    for (; v + kStep <= whole_ && column + kColumns <= whole_; v += kStep, column += kColumns) {
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) dot(v + i, sum[i % kChains]);
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; ++i) add(column + i);
    }
    for (; v < whole_; v += kStep, column += kColumns) {
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) {
        if (v + i < whole_) dot(v + i, sum[i % kChains]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; ++i) {
        if (column + i < whole_) add(column + i);
      }
    }
    if (kDots && whole_ * W < d_) {
      PrefetchAhead<W * sizeof(T)>(x + whole_ * W, kAhead);
      sum[0] = Fma(LoadTail(x, d_), Load(w_ + whole_ * W), sum[0]);
    }
    return Add(Add(sum[0], sum[1]), Add(sum[2], sum[3]));
  }

  // Vector v of the gradient += Σᵢ residual[i]·load(i).
  template <int kRows, class LoadX>
  [[gnu::always_inline]] void AddColumns(LoadX load, std::int64_t v, const V* residual) {
    V sum = Load(grad_ + v * W);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sum = Fma(residual[i], load(i), sum);
    Store(grad_ + v * W, sum);
  }
};
