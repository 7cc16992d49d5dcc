// The dots of five to eight targets for rows of more than kNarrow columns. Included by
// few_targets_tiled.h.
//
// The lanes of a vector of weights are eight targets times kGroup columns, and a row's elements are
// broadcast to them, kGroup at a time. With fewer targets the other lanes' weights are zero.
//
// Vectors along the row, as fewer targets have them, need a tree of sums for every two rows, or a
// transposition: the dots of 2048 rows of 64 features by 8 targets took 19.6 us, and take 14.2, of
// which 7.6 are the multiplications (one core, in the cache). The pass over 128 MiB on two cores:
// 3.8 -> 3.1 ms for 64 features, 4.3 -> 3.1 for 1000.

template <class T>
struct DotsOfEight {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));
  static constexpr int kTargets = 8;
  static constexpr int kGroup = W / kTargets;
  // Rows that share a load of w.
  static constexpr int kRows = kAccumulators >= W ? W : 4;
  // A dot is a sum of sums over this many groups of columns, whose weights fill half a first-level
  // cache of 32 KiB.
  static constexpr std::int64_t kGroupsPerSegment = 256;

  // w [d, k] as the kernel reads it: C [columns / kGroup][kTargets][kGroup].
  static void PackWeights(const C* w, std::int64_t d, std::int64_t k, C* out) {
    static constexpr decltype(&Pack<8>) kTable[] = {Pack<5>, Pack<6>, Pack<7>, Pack<8>};
    kTable[k - 5](w, d, out);
  }

  // dots[t·stride + i] = x[i]·w[t] for t < k, i < rows, and whatever up to the next multiple of W.
  // Half as much is fetched from `next` on.
  static void Rows(const T* x, std::int64_t d, std::int64_t rows, const T* next, const C* w,
                   std::int64_t k, C* dots, std::int64_t stride) {
    const std::int64_t groups = d / kGroup;
    for (std::int64_t begin = 0; begin == 0 || begin < groups; begin += kGroupsPerSegment) {
      const std::int64_t end = Min(begin + kGroupsPerSegment, groups);
      const bool last = end == groups;
      for (std::int64_t row = 0; row < rows; row += W) {
        alignas(64) C sums[W * W];
        const std::int64_t count = Min<std::int64_t>(rows - row, W);
        const auto dot = [&](auto height, std::int64_t i) {
          constexpr int R = decltype(height)::value;
          const T* from = x + (row + i) * d;
          Dot<R>(from + begin * kGroup, d, end - begin, w + begin * W, next, sums + i * W);
          if (last && d % kGroup != 0) LastColumn<R>(from + d - 1, d, w + groups * W, sums + i * W);
        };
        std::int64_t i = 0;
        for (; i + kRows <= count; i += kRows) dot(std::integral_constant<int, kRows>{}, i);
        for (; i + 4 <= count; i += 4) dot(std::integral_constant<int, 4>{}, i);
        for (; i < count; ++i) dot(std::integral_constant<int, 1>{}, i);
        Spread(sums, k, begin > 0, dots + row, stride);
      }
    }
  }

 private:
  template <int K>
  static void Pack(const C* w, std::int64_t d, C* out) {
    const auto column = [&](std::int64_t j, const C* from) {
      C* const to = out + j / kGroup * W + j % kGroup;
      for (int t = 0; t < kTargets; ++t) to[t * kGroup] = t < K && from != nullptr ? from[t] : C(0);
    };
    for (std::int64_t j = 0; j < d; ++j) column(j, w + j * K);
    for (std::int64_t j = d; j < RoundUp(d, kGroup); ++j) column(j, nullptr);
  }

  [[gnu::always_inline]] static V Broadcast(const T* p) {
    if constexpr (kGroup == 1) {
      return Set(*p);
    } else {
      return SetPair(p);
    }
  }

  // sums[i] = Σ over groups of x[i]·w, lane by lane, for i < R.
  template <int R>
  static void Dot(const T* x, std::int64_t d, std::int64_t groups, const C* w, const T*& next,
                  C* sums) {
    // One pointer per three rows: see Product in many_targets_tile.h.
    constexpr int kBases = (R + 2) / 3;
    const T* base[kBases];
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * d;
    V sum[R];
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) sum[i] = Zero(V{});
    const auto step = [&](std::int64_t group) __attribute__((always_inline)) {
      const V weights = Load(w + group * W);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        sum[i] = Fma(Broadcast(base[i / 3] + i % 3 * d + group * kGroup), weights, sum[i]);
      }
    };
    const auto advance = [&](std::int64_t count) __attribute__((always_inline)) {
      w += count * W;
#pragma GCC unroll 8
      for (int b = 0; b < kBases; ++b) {
        base[b] += count * kGroup;
        asm("" : "+r"(base[b]));
      }
    };
    constexpr int kUnroll = 4;
    constexpr int kFetched = kUnroll * kGroup * R / 2;
    std::int64_t group = 0;
    for (; group + kUnroll <= groups; group += kUnroll) {
#pragma GCC unroll 16
      for (int i = 0; i < kFetched; i += 64 / sizeof(T)) Prefetch(next + i);
      next += kFetched;
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) step(u);
      advance(kUnroll);
    }
    for (; group < groups; ++group) {
      step(0);
      advance(1);
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) Store(sums + i * W, sum[i]);
  }

  template <int R>
  static void LastColumn(const T* x, std::int64_t d, const C* w, C* sums) {
    for (int i = 0; i < R; ++i) {
      const T group[2] = {x[i * d], T{}};
      Store(sums + i * W, Fma(Broadcast(group), Load(w), Load(sums + i * W)));
    }
  }

  // From [rows][targets][kGroup], kGroup to be added up, to (or onto) [targets][stride].
  static void Spread(const C* sums, std::int64_t k, bool add, C* dots, std::int64_t stride) {
    V row[kTargets], column[kTargets];
#pragma GCC unroll 8
    for (int i = 0; i < kTargets; ++i) {
      if constexpr (kGroup == 1) {
        row[i] = Load(sums + i * W);
      } else {
        row[i] = AddPairs(Load(sums + 2 * i * W), Load(sums + (2 * i + 1) * W));
      }
    }
    Deinterleave<kTargets>(row, column);
#pragma GCC unroll 8
    for (int t = 0; t < kTargets; ++t) {
      if (t >= k) break;
      C* out = dots + t * stride;
      Store(out, add ? Add(Load(out), column[t]) : column[t]);
    }
  }
};
