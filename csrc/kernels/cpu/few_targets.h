// Loss and gradient for up to eight targets, in one pass over X.
//
// Rows are cut into slots (tasks) and slots into tiles whose second use hits the cache. For a tile:
// dots X·w, then residuals in double (loss, intercept, c = s·r), then the gradient X^T·c. Sums over
// rows climb a ladder: registers over one tile in C, then double over a slot, then a fixed-order
// sum over slots, so that n = 10^8 loses nothing.
//
// Rows of up to kNarrow columns are transposed in registers and vectorised across rows; wider rows
// are vectorised along the row. Included inside the unit's own namespace.

constexpr int kNarrow = 8;  // as in plan.cc

constexpr std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return (a + b - 1) / b * b; }
constexpr int PowerOfTwo(int a) { return a <= 1 ? 1 : 2 * PowerOfTwo((a + 1) / 2); }
template <class I>
constexpr I Min(I a, I b) {
  return a < b ? a : b;
}

template <class T>
struct ComputeType {
  using Type = float;
};
template <>
struct ComputeType<double> {
  using Type = double;
};
template <class T>
using Compute = typename ComputeType<T>::Type;
template <class C>
using Vec = decltype(Load(static_cast<const C*>(nullptr)));

// Adjacent lanes of a followed by b, added.
template <class V>
inline V AddPairs(V a, V b) {
  V even, odd;
  Unzip(a, b, even, odd);
  return Add(even, odd);
}

// Lane i < N of the result is the sum of the lanes of acc[i], by the same tree for every N.
template <int N, int kLanes, class V>
inline V SumEach(V* acc) {
  static_assert((N & (N - 1)) == 0 && N <= kLanes);
#pragma GCC unroll 8
  for (int width = N; width > 1; width /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < width / 2; ++i) acc[i] = AddPairs(acc[2 * i], acc[2 * i + 1]);
  }
  V sum = acc[0];
#pragma GCC unroll 8
  for (int left = kLanes / N; left > 1; left /= 2) sum = AddPairs(sum, sum);
  return sum;
}

inline double SumLanes(F64x8 a) {
  double v[8];
  Store(v, a);
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

inline void StoreWide(double* p, F32x16 a) {
  Store(p, Low(a));
  Store(p + 8, High(a));
}
inline void StoreWide(double* p, F64x8 a) { Store(p, a); }
inline void AddWide(double* p, F32x16 a) {
  Store(p, Add(Load(p), Low(a)));
  Store(p + 8, Add(Load(p + 8), High(a)));
}
inline void AddWide(double* p, F64x8 a) { Store(p, Add(Load(p), a)); }

// Splits N vectors of interleaved columns: lane i of column[j] is element i·N + j of the whole.
template <int N, class V>
inline void Deinterleave(const V* v, V* column) {
  if constexpr (N == 1) {
    column[0] = v[0];
  } else {
    V even[N / 2], odd[N / 2], even_columns[N / 2], odd_columns[N / 2];
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) Unzip(v[2 * i], v[2 * i + 1], even[i], odd[i]);
    Deinterleave<N / 2>(even, even_columns);
    Deinterleave<N / 2>(odd, odd_columns);
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) {
      column[2 * i] = even_columns[i];
      column[2 * i + 1] = odd_columns[i];
    }
  }
}

// Transposes x [rows, D] into out [D][stride], zeros behind the last row up to a whole vector.
template <int D, class T>
void Transpose(const T* x, std::int64_t rows, Compute<T>* out, std::int64_t stride) {
  using V = Vec<Compute<T>>;
  constexpr int kLanes = Lanes(static_cast<const Compute<T>*>(nullptr));
  constexpr int P = PowerOfTwo(D);
  const auto group = [&](const T* from, std::int64_t row) {
    V v[P], column[P];
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) v[i] = LoadRows<D, P>(from + i * (kLanes / P) * D);
    Deinterleave<P>(v, column);
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) Store(out + j * stride + row, column[j]);
  };
  std::int64_t row = 0;
  for (; row + kLanes <= rows; row += kLanes) group(x + row * D, row);
  if (row < rows) {
    T buffer[kLanes * D] = {};
    for (std::int64_t i = 0; i < (rows - row) * D; ++i) buffer[i] = x[row * D + i];
    group(buffer, row);
  }
}

template <class T>
void TransposeAny(const T* x, std::int64_t rows, std::int64_t d, Compute<T>* out,
                  std::int64_t stride) {
  switch (d) {
    case 1:
      return Transpose<1>(x, rows, out, stride);
    case 2:
      return Transpose<2>(x, rows, out, stride);
    case 3:
      return Transpose<3>(x, rows, out, stride);
    case 4:
      return Transpose<4>(x, rows, out, stride);
    case 5:
      return Transpose<5>(x, rows, out, stride);
    case 6:
      return Transpose<6>(x, rows, out, stride);
    case 7:
      return Transpose<7>(x, rows, out, stride);
    case 8:
      return Transpose<8>(x, rows, out, stride);
    default:
      return;
  }
}

// Sums over rows of one target that the residuals yield.
struct Sums {
  F64x8 loss = Zero(F64x8{});
  F64x8 bias = Zero(F64x8{});
};

// r = dots + bias − y; loss += s r²; c = s r, zero from `rows` to the next multiple of 16.
// In double: the subtraction is exact where prediction and target nearly cancel.
template <class TY, class TS, class C>
void Residuals(const double* dots, const TY* y, const TS* s, double bias, std::int64_t rows,
               Sums& sums, C* c) {
  const F64x8 b = Set(bias);
  Sums local = sums;
  const auto group = [&](std::int64_t i, const TY* yi, const TS* si, int valid) {
    F64x8 r = Add(Load(dots + i), b);
    if (yi != nullptr) r = Sub(r, LoadF64(yi));
    if (valid < 8) r = KeepFirst(r, valid);
    const F64x8 sr = si != nullptr ? Mul(LoadF64(si), r) : r;
    local.loss = Fma(sr, r, local.loss);
    local.bias = Add(local.bias, sr);
    StoreF64(c + i, sr);
  };
  std::int64_t i = 0;
  for (; i + 8 <= rows; i += 8) {
    group(i, y != nullptr ? y + i : nullptr, s != nullptr ? s + i : nullptr, 8);
  }
  for (; i < RoundUp(rows, 16); i += 8) {
    const int valid = static_cast<int>(i < rows ? rows - i : 0);
    TY y_tail[8] = {};
    TS s_tail[8] = {};
    for (int j = 0; j < valid; ++j) {
      if (y != nullptr) y_tail[j] = y[i + j];
      if (s != nullptr) s_tail[j] = s[i + j];
    }
    group(i, y != nullptr ? y_tail : nullptr, s != nullptr ? s_tail : nullptr, valid);
  }
  sums = local;
}

// The buffers of one tile in a worker's scratch. [k][rows] each, rows padded to 16.
template <class C, class TY>
struct Tile {
  std::int64_t stride;
  double* dots;
  C* c;
  Compute<TY>* y;
  char* rest;

  Tile(char* scratch, std::int64_t k, std::int64_t tile_rows)
      : stride(RoundUp(tile_rows, 16)),
        dots(reinterpret_cast<double*>(scratch)),
        c(reinterpret_cast<C*>(dots + k * stride)),
        y(reinterpret_cast<Compute<TY>*>(c + k * stride)),
        rest(reinterpret_cast<char*>(y + k * stride)) {}
};

template <class T, class TY>
struct FewTargets {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));

  static void Prepare(const Problem& p, const Plan& plan, char* workspace) {
    if (p.d <= kNarrow) return;
    const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
    C* out = reinterpret_cast<C*>(workspace + plan.weights_offset);
    const std::int64_t whole = p.d / W * W;
    for (std::int64_t t = 0; t < p.k; ++t, out += plan.padded_d) {
      for (std::int64_t j = 0; j < whole; ++j) out[j] = w[j * p.k + t];
      if (whole == p.d) continue;
      // The last vector: see LoadTail.
      for (std::int64_t lane = 0; lane < W; ++lane) {
        const std::int64_t j = whole == 0 ? lane : p.d - W + lane;
        out[whole + lane] = j < whole || j >= p.d ? C(0) : w[j * p.k + t];
      }
    }
  }

  static void Run(const Problem& p, const Plan& plan, char* workspace, int stage, int task,
                  int worker) {
    if (stage == 1) return Reduce(p, plan, workspace, task);
    double* partial =
        reinterpret_cast<double*>(workspace + plan.partials_offset) + task * plan.partial_stride;
    char* scratch = workspace + plan.scratch_offset + worker * plan.scratch_bytes;
    const std::int64_t begin = task * plan.slot_rows;
    const std::int64_t end = Min(begin + plan.slot_rows, p.n);
    if (p.d <= kNarrow) {
      Narrow(p, plan, begin, end, scratch, partial);
    } else {
      Wide(p, plan, workspace, begin, end, scratch, partial);
    }
  }

 private:
  static const TY* At(const void* base, std::int64_t i) {
    return base == nullptr ? nullptr : static_cast<const TY*>(base) + i;
  }

  // Residuals of the tile that starts at `row`, for every target.
  static void TileResiduals(const Problem& p, const Tile<C, TY>& tile, std::int64_t row,
                            std::int64_t rows, Sums* sums) {
    const C* w = static_cast<const C*>(p.w);
    const TY* s = At(p.sample_weight, row);
    const TY* y = At(p.y, row * p.k);
    if (p.k == 1) {
      const double bias = p.intercept ? static_cast<double>(w[0]) : 0.0;
      return Residuals(tile.dots, y, s, bias, rows, sums[0], tile.c);
    }
    if (y != nullptr) TransposeAny(y, rows, p.k, tile.y, tile.stride);
    for (std::int64_t t = 0; t < p.k; ++t) {
      const double bias = p.intercept ? static_cast<double>(w[t]) : 0.0;
      const Compute<TY>* yt = y != nullptr ? tile.y + t * tile.stride : nullptr;
      Residuals(tile.dots + t * tile.stride, yt, s, bias, rows, sums[t], tile.c + t * tile.stride);
    }
  }

  static void StoreSums(const Problem& p, const Sums* sums, double* partial) {
    for (std::int64_t t = 0; t < p.k; ++t) {
      partial[t] = SumLanes(sums[t].loss);
      partial[p.k + t] = SumLanes(sums[t].bias);
    }
  }

#include "kernels/cpu/few_targets_narrow.h"
#include "kernels/cpu/few_targets_wide.h"

  // Adds the slots' partial sums in order and writes columns of the gradient; task 0 also the loss
  // and the intercept.
  static void Reduce(const Problem& p, const Plan& plan, char* workspace, int task) {
    const double* partials = reinterpret_cast<const double*>(workspace + plan.partials_offset);
    const auto sum = [&](std::int64_t i) {
      double total = partials[i];
      for (int slot = 1; slot < plan.tasks[0]; ++slot) {
        total += partials[slot * plan.partial_stride + i];
      }
      return total;
    };
    C* grad = static_cast<C*>(p.grad);
    if (task == 0) {
      for (std::int64_t t = 0; t < p.k; ++t) {
        p.loss[t] = sum(t);
        if (p.intercept && grad != nullptr) grad[t] = static_cast<C>(sum(p.k + t));
      }
    }
    if (grad == nullptr) return;
    grad += p.intercept ? p.k : 0;
    const std::int64_t begin = task * plan.columns_per_task;
    const std::int64_t end = Min(begin + plan.columns_per_task, plan.padded_d);
    const std::int64_t first = RoundUp(2 * p.k, 8);
    const std::int64_t whole = p.d <= kNarrow ? p.d : p.d / W * W;
    for (std::int64_t t = 0; t < p.k; ++t) {
      for (std::int64_t j = begin; j < end; j += 8) {
        const double* from = partials + first + t * plan.padded_d + j;
        F64x8 total = Load(from);
        for (int slot = 1; slot < plan.tasks[0]; ++slot) {
          total = Add(total, Load(from + slot * plan.partial_stride));
        }
        if (p.k == 1 && j + 8 <= whole) {
          StoreF64(grad + j, total);
          continue;
        }
        double lanes[8];
        Store(lanes, total);
        for (std::int64_t lane = 0; lane < 8; ++lane) {
          const std::int64_t column = ColumnOf(p.d, whole, j + lane);
          if (column >= 0) grad[column * p.k + t] = static_cast<C>(lanes[lane]);
        }
      }
    }
  }

  // The column that position j of a padded row stands for; −1: none.
  static std::int64_t ColumnOf(std::int64_t d, std::int64_t whole, std::int64_t j) {
    if (j < whole) return j;
    if (whole == 0 || d <= kNarrow) return j < d ? j : -1;
    const std::int64_t column = d - W + (j - whole);
    return column < whole ? -1 : column;
  }
};

template <class T>
void Widen(const void* from, void* to, std::int64_t count) {
  using C = Compute<T>;
  constexpr int kLanes = Lanes(static_cast<const C*>(nullptr));
  const T* in = static_cast<const T*>(from);
  C* out = static_cast<C*>(to);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, Load(in + i));
  if (i == count) return;
  C tail[kLanes];
  Store(tail, LoadFirst(in + i, static_cast<int>(count - i)));
  for (int j = 0; i + j < count; ++j) out[i + j] = tail[j];
}

template <class T>
void Narrow(const void* from, void* to, std::int64_t count) {
  using C = Compute<T>;
  const C* in = static_cast<const C*>(from);
  T* out = static_cast<T*>(to);
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(T) == 2) {
      FromFloat(in[i], out + i);
    } else {
      out[i] = in[i];
    }
  }
}
