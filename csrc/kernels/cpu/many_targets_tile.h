// The register tiles of both products of many_targets.h: kTileRows rows of kTileVectors virtual
// vectors, each element one chain of fused multiply-adds from zero. Which tile an element falls in,
// and in which lane, changes no bit of it. Included inside the unit's own namespace.

// AVX-512: 12 rows of 2 vectors reach 262 of 265 GFLOP/s from the first-level cache; 14 rows fit
// the register file, but not with the addresses of 14 rows of X beside them.
constexpr int kTileVectors = kAccumulators >= 24 ? 2 : 1;
constexpr int kTileRows = kAccumulators >= 6 ? kAccumulators / kTileVectors : 1;

// The scalar unit has no vector registers to keep a tile in, and unrolled tiles would cost minutes
// of compiling.
constexpr int kUnroll = kTileRows > 1 ? 32 : 1;

// Columns of W and R are stored in panels of this many, whatever the tile.
template <class C>
constexpr int kPanel = 2 * Lanes(static_cast<const C*>(nullptr));

// Where to fetch from memory while computing: `bytes` per four steps.
struct Ahead {
  const char* at;
  std::int64_t bytes;
};

// Deals out what will be read next, x and then y, in equal doses per step of computing. The
// hardware's own prefetchers lose 12 rows that are read side by side, and y, of which a tile reads
// 12 short pieces: without, 64 targets by 256 features ran at 194 GFLOP/s a core instead of 235.
class Feed {
 public:
  Feed() = default;
  Feed(const void* x, std::int64_t x_bytes, const void* y, std::int64_t y_bytes, std::int64_t steps)
      : x_(static_cast<const char*>(x)),
        y_(static_cast<const char*>(y)),
        x_bytes_(x_bytes),
        bytes_(x_bytes + y_bytes),
        per_step_(static_cast<double>(bytes_) / static_cast<double>(steps > 0 ? steps : 1)) {}

  // For the next `steps` steps.
  Ahead Take(std::int64_t steps) {
    const auto begin = static_cast<std::int64_t>(at_);
    at_ += per_step_ * static_cast<double>(steps);
    if (begin >= bytes_) return {nullptr, 0};
    return {begin < x_bytes_ ? x_ + begin : y_ + (begin - x_bytes_),
            static_cast<std::int64_t>(4 * per_step_ + 7) & ~std::int64_t{7}};
  }

 private:
  const char* x_ = nullptr;
  const char* y_ = nullptr;
  std::int64_t x_bytes_ = 0, bytes_ = 0;
  double per_step_ = 0, at_ = 0;
};

inline void Fetch(Ahead& ahead) {
  for (std::int64_t i = 0; i < ahead.bytes; i += 64) __builtin_prefetch(ahead.at + i, 0, 2);
  ahead.at += ahead.bytes;
}

// acc[r][v] = sum over t < steps of a(r, t) b(t, v), where a(r, t) is a[r + t·a_stride] with
// kColumn and a[r·a_stride + t] without, and b(t, v) starts at b + t·b_stride, its last vector
// b_last elements behind.
template <class V, int R, int N, bool kColumn, class C>
inline void Product(V (&acc)[R][N], const C* a, std::int64_t a_stride, const C* b,
                    std::int64_t b_stride, std::int64_t b_last, std::int64_t steps, Ahead& ahead) {
  constexpr int kLanes = Lanes(static_cast<const C*>(nullptr));
#pragma GCC unroll kUnroll
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) acc[r][v] = Zero(V{});
  }
  // One pointer per three rows: x86 addresses reach base, base + stride and base + 2·stride. Left
  // alone the compiler keeps one per row, and spills accumulators for them.
  constexpr int kBases = kColumn ? 1 : (R + 2) / 3;
  const std::int64_t bytes = a_stride * static_cast<std::int64_t>(sizeof(C));
  const char* base[kBases];
#pragma GCC unroll kUnroll
  for (int g = 0; g < kBases; ++g) base[g] = reinterpret_cast<const char*>(a) + 3 * g * bytes;
  const auto step = [&](std::int64_t t) __attribute__((always_inline)) {
    V bv[N];
#pragma GCC unroll kUnroll
    for (int v = 0; v < N - 1; ++v) bv[v] = Load(b + v * kLanes);
    bv[N - 1] = Load(b + b_last);
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
      const char* at =
          kColumn ? base[0] + r * sizeof(C) : base[r / 3] + (r % 3) * bytes + t * sizeof(C);
      const V x = Set(*reinterpret_cast<const C*>(at));
#pragma GCC unroll kUnroll
      for (int v = 0; v < N; ++v) acc[r][v] = Fma(x, bv[v], acc[r][v]);
    }
    b += b_stride;
    if (kColumn) base[0] += bytes;
  };
  const auto advance = [&](std::int64_t t) __attribute__((always_inline)) {
    if (kColumn) return;
#pragma GCC unroll kUnroll
    for (int g = 0; g < kBases; ++g) {
      base[g] += t * sizeof(C);
      asm("" : "+r"(base[g]));
    }
  };
  std::int64_t t = 0;
  for (; kUnroll > 1 && t + 4 <= steps; t += 4) {
    Fetch(ahead);
    step(0);
    step(1);
    step(2);
    step(3);
    advance(4);
  }
  for (; t < steps; ++t) {
    step(0);
    advance(1);
  }
}

// A vector as doubles, eight at a time.
inline void ToF64(F32x16 a, F64x8* out) {
  out[0] = Low(a);
  out[1] = High(a);
}
inline void ToF64(F64x8 a, F64x8* out) { out[0] = a; }

// R = X·W - Y for consecutive tiles of rows against one panel of W, or a part of the sum over d.
template <class C, class TY>
struct ResidualTiles {
  std::int64_t tiles;
  const C* x;  // [tiles·R, x_stride]
  std::int64_t x_stride;
  const C* w;  // [depth, w_stride]
  std::int64_t w_stride;
  std::int64_t depth;
  bool first, last;  // the part of the sum over d
  C* r;              // [tiles·R, kPanel]; between parts the sums so far
  // Wanted by the last part.
  const C* bias;  // [N·lanes], or null
  const TY* y;    // [tiles·R, y_stride], or null
  std::int64_t y_stride;
  int y_columns;      // columns of y there are, from 1 to N·lanes
  const C* s;         // [tiles·R], or null
  double* loss;       // [N·lanes]: += s r²
  double* bias_grad;  // [N·lanes]: += s r; null without bias
  Ahead ahead;
};

template <class V, int N, class C, class TY>
inline void FinishResidualRow(const ResidualTiles<C, TY>& p, V (&acc)[N], std::int64_t row, C* r,
                              const V* bias, F64x8* loss, F64x8* bias_grad) {
  constexpr int kLanes = Lanes(static_cast<const C*>(nullptr));
  constexpr int kParts = kLanes / 8;
#pragma GCC unroll kUnroll
  for (int v = 0; v < N; ++v) {
    V e = acc[v];
    if (p.bias != nullptr) e = Add(e, bias[v]);
    if (p.y != nullptr) {
      const TY* y = p.y + row * p.y_stride + v * kLanes;
      const int columns = p.y_columns - v * kLanes;
      e = Sub(e, columns >= kLanes ? Load(y) : LoadFirst(y, columns));
    }
    const V se = p.s != nullptr ? Mul(e, Set(p.s[row])) : e;
    Store(r + v * kLanes, se);
    F64x8 wide[kParts], s_wide[kParts];
    ToF64(e, wide);
    ToF64(se, s_wide);
#pragma GCC unroll kUnroll
    for (int i = 0; i < kParts; ++i) {
      loss[v * kParts + i] = Fma(s_wide[i], wide[i], loss[v * kParts + i]);
      if (p.bias != nullptr) bias_grad[v * kParts + i] = Add(bias_grad[v * kParts + i], s_wide[i]);
    }
  }
}

template <class V, int R, int N, class C, class TY>
void Residual(const ResidualTiles<C, TY>& tiles) {
  constexpr int kLanes = Lanes(static_cast<const C*>(nullptr));
  constexpr int kParts = N * kLanes / 8;
  const ResidualTiles<C, TY> p = tiles;
  Ahead ahead = p.ahead;
  const C* x = p.x;
  C* out = p.r;
  for (std::int64_t tile = 0; tile < p.tiles; ++tile, x += R * p.x_stride, out += R * kPanel<C>) {
    if (p.last && p.y != nullptr && p.depth >= 64) {
      const TY* y = p.y + tile * R * p.y_stride;
      for (int r = 0; r < R; ++r, y += p.y_stride) {
        for (int j = 0; j < p.y_columns; j += kLanes) __builtin_prefetch(y + j);
      }
    }
    V acc[R][N];
    Product<V, R, N, false>(acc, x, p.x_stride, p.w, p.w_stride, (N - 1) * kLanes, p.depth, ahead);
    if (!p.first) {
#pragma GCC unroll kUnroll
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
        for (int v = 0; v < N; ++v) {
          acc[r][v] = Add(Load(out + r * kPanel<C> + v * kLanes), acc[r][v]);
        }
      }
    }
    if (!p.last) {
#pragma GCC unroll kUnroll
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
        for (int v = 0; v < N; ++v) Store(out + r * kPanel<C> + v * kLanes, acc[r][v]);
      }
      continue;
    }
    V bias[N];
    F64x8 loss[kParts], bias_grad[kParts];
#pragma GCC unroll kUnroll
    for (int i = 0; i < kParts; ++i) {
      loss[i] = Load(p.loss + 8 * i);
      bias_grad[i] = p.bias != nullptr ? Load(p.bias_grad + 8 * i) : Zero(F64x8{});
    }
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) bias[v] = p.bias != nullptr ? Load(p.bias + v * kLanes) : Zero(V{});
#pragma GCC unroll kUnroll
    for (int r = 0; r < R; ++r) {
      FinishResidualRow(p, acc[r], tile * R + r, out + r * kPanel<C>, bias, loss, bias_grad);
    }
#pragma GCC unroll kUnroll
    for (int i = 0; i < kParts; ++i) {
      Store(p.loss + 8 * i, loss[i]);
      if (p.bias != nullptr) Store(p.bias_grad + 8 * i, bias_grad[i]);
    }
  }
}

// grad[r][v] (+)= sum over rows t of a(r, t) b(t, v): one tile of the gradient, or of its
// transpose.
template <class C>
struct GradientTile {
  const C* a;  // [steps, a_stride], R columns of it
  std::int64_t a_stride;
  const C* b;  // [steps, b_stride], N vectors of it
  std::int64_t b_stride;
  std::int64_t b_last;
  std::int64_t steps;
  double* grad;  // [R, kPanel]
  bool add;
  Ahead ahead;
};

template <class V, int R, int N, class C>
void Gradient(const GradientTile<C>& p) {
  constexpr int kLanes = Lanes(static_cast<const C*>(nullptr));
  constexpr int kParts = kLanes / 8;
  V acc[R][N];
  Ahead ahead = p.ahead;
  Product<V, R, N, true>(acc, p.a, p.a_stride, p.b, p.b_stride, p.b_last, p.steps, ahead);
#pragma GCC unroll kUnroll
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll kUnroll
    for (int v = 0; v < N; ++v) {
      double* out = p.grad + r * kPanel<C> + v * kLanes;
      F64x8 wide[kParts];
      ToF64(acc[r][v], wide);
#pragma GCC unroll kUnroll
      for (int i = 0; i < kParts; ++i) {
        Store(out + 8 * i, p.add ? Add(Load(out + 8 * i), wide[i]) : wide[i]);
      }
    }
  }
}

// The tiles of every size, [vectors - 1][rows - 1].
template <class C, class TY>
struct Tiles {
  using V = Vec<C>;
  using ResidualFunction = void (*)(const ResidualTiles<C, TY>&);
  using GradientFunction = void (*)(const GradientTile<C>&);

  template <int N, int... kRows>
  static void RunResidual(int rows, const ResidualTiles<C, TY>& p,
                          std::integer_sequence<int, kRows...>) {
    static constexpr ResidualFunction kTable[] = {Residual<V, kRows + 1, N, C, TY>...};
    kTable[rows - 1](p);
  }
  template <int N, int... kRows>
  static void RunGradient(int rows, const GradientTile<C>& p,
                          std::integer_sequence<int, kRows...>) {
    static constexpr GradientFunction kTable[] = {Gradient<V, kRows + 1, N, C>...};
    kTable[rows - 1](p);
  }

  using Rows = std::make_integer_sequence<int, kTileRows>;

  static void RunResidual(int rows, int vectors, const ResidualTiles<C, TY>& p) {
    if (vectors == 1) return RunResidual<1>(rows, p, Rows{});
    if constexpr (kTileVectors == 2) RunResidual<2>(rows, p, Rows{});
  }
  static void RunGradient(int rows, int vectors, const GradientTile<C>& p) {
    if (vectors == 1) return RunGradient<1>(rows, p, Rows{});
    if constexpr (kTileVectors == 2) RunGradient<2>(rows, p, Rows{});
  }
};
