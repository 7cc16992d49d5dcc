// Loss and gradient for up to eight targets, in one pass over X.
//
// Rows are cut into slots, the tasks of the first stage. Within a slot a row is used twice, for its
// dot product with w and, scaled by its residual, for the gradient, while it is in registers or in
// the cache. Sums over rows climb a ladder: at most kRowsPerFlush rows in C, then double over a
// slot, then a fixed-order sum over slots in the second stage, so that n = 10^8 loses nothing.
//
// Included inside the unit's own namespace.

constexpr int kNarrow = 8;  // as in plan.cc

// The scalar unit is there to be correct: unrolled over 16 lanes, kernels that hide latencies would
// take minutes to compile.
constexpr bool kVectorUnit = kAccumulators >= 6;

// How many rows are summed in C before the sum goes on in double.
constexpr std::int64_t kRowsPerFlush = 128;

constexpr std::int64_t RoundUp(std::int64_t a, std::int64_t b) { return (a + b - 1) / b * b; }
constexpr int PowerOfTwo(int a) { return a <= 1 ? 1 : 2 * PowerOfTwo((a + 1) / 2); }
template <class I>
constexpr I Min(I a, I b) {
  return a < b ? a : b;
}
template <class I>
constexpr I Max(I a, I b) {
  return a < b ? b : a;
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

// Lane i < N of the result is the sum of the lanes of a[i], by the same tree for every N. Recursion
// and not loops, which leave the compiler with an array in memory.
template <int N, class V>
[[gnu::always_inline]] inline V AddTree(const V* a) {
  if constexpr (N == 1) {
    return a[0];
  } else {
    return AddPairs(AddTree<N / 2>(a), AddTree<N / 2>(a + N / 2));
  }
}
template <int N, int kLanes, class V>
[[gnu::always_inline]] inline V SumEach(const V* a) {
  static_assert((N & (N - 1)) == 0 && N <= kLanes);
  V sum = AddTree<N>(a);
#pragma GCC unroll 8
  for (int left = kLanes / N; left > 1; left /= 2) sum = AddPairs(sum, sum);
  return sum;
}

inline double SumLanes(F64x8 a) {
  double v[8];
  Store(v, a);
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}
inline double SumLanes(const float*, const double* lanes) {
  return SumLanes(Add(Load(lanes), Load(lanes + 8)));
}
inline double SumLanes(const double*, const double* lanes) { return SumLanes(Load(lanes)); }

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

// The last vector of a row whose length is not a multiple of W: of a row shorter than W its
// elements with zeros behind; else the W elements that end the row, with zeros in place of those
// that the vector before has. Nothing outside the row is read.
template <class T>
inline auto LoadTail(const T* row, std::int64_t d) {
  constexpr int W = Lanes(static_cast<const Compute<T>*>(nullptr));
  if (d < W) return LoadFirst(row, static_cast<int>(d));
  return DropFirst(Load(row + d - W), static_cast<int>((W - d % W) % W));
}

// Splits N vectors of interleaved columns: lane i of column[j] is element i·N + j of the whole.
template <int N, class V>
[[gnu::always_inline]] inline void Deinterleave(const V* v, V* column) {
  if constexpr (N == 1) {
    column[0] = v[0];
  } else {
    V even[N / 2], odd[N / 2], even_columns[N / 2], odd_columns[N / 2];
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; ++i) Unzip(v[2 * i], v[2 * i + 1], even[i], odd[i]);
    Deinterleave<N / 2>(even, even_columns);
    Deinterleave<N / 2>(odd, odd_columns);
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; ++i) {
      column[2 * i] = even_columns[i];
      column[2 * i + 1] = odd_columns[i];
    }
  }
}

// The columns of W rows of D elements; as many vectors as the next power of two. May read up to W
// elements beyond the rows.
template <int D, class T, class V>
[[gnu::always_inline]] inline void LoadColumns(const T* x, V* column) {
  constexpr int W = Lanes(static_cast<const Compute<T>*>(nullptr));
  constexpr int P = PowerOfTwo(D);
  V v[P];
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i) {
    if constexpr (P == W) {
      v[i] = Load(x + i * D);
    } else {
      v[i] = LoadRows<D, P>(x + i * (W / P) * D);
    }
  }
  Deinterleave<P>(v, column);
}

// Fetches the cache lines of kBytes bytes, `ahead` of p, past the second-level cache: a pass has no
// second use for them, but its caller has for what they would push out. With X beyond the caches,
// an eager call of 6.5 ms takes 5.9, and one of a tf.function 6.4 rather than 7.1, as TensorFlow
// finds its own code and data still there. X that fits into the third level stays there.
template <int kBytes>
[[gnu::always_inline]] inline void PrefetchAhead(const void* p, std::int64_t ahead) {
#pragma GCC unroll 64
  for (int i = 0; i < kBytes; i += 64) PrefetchOnce(static_cast<const char*>(p) + ahead + i);
}

// The column that position j of such a padded row stands for; −1: none.
template <int W>
inline std::int64_t ColumnOf(std::int64_t d, std::int64_t j) {
  const std::int64_t whole = d / W * W;
  if (j < whole) return j;
  if (whole == 0) return j < d ? j : -1;
  const std::int64_t column = d - W + (j - whole);
  return column < whole ? -1 : column;
}

#include "kernels/cpu/few_targets_sums.h"

// How to read y and sample_weight, whatever their type: the kernels know C alone.
template <class C>
struct Inputs {
  // [rows] from `first` on: where they are, or widened into the buffer. Null of null.
  const C* (*column)(const void* base, std::int64_t first, std::int64_t rows, C* buffer);
  // [rows, k] from row `first` on, transposed into out [k][stride].
  void (*transpose)(const void* base, std::int64_t first, std::int64_t rows, std::int64_t k, C* out,
                    std::int64_t stride);
  int element_size;
};

// Transposes x [rows, D] into out [D][stride], zeros behind the last row up to a whole vector.
template <int D, class T>
void Transpose(const T* x, std::int64_t rows, Compute<T>* out, std::int64_t stride) {
  using V = Vec<Compute<T>>;
  constexpr int W = Lanes(static_cast<const Compute<T>*>(nullptr));
  const auto group = [&](const T* from, std::int64_t row) {
    V column[PowerOfTwo(D)];
    LoadColumns<D>(from, column);
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) Store(out + j * stride + row, column[j]);
  };
  std::int64_t row = 0;
  constexpr int kBeyond = D == PowerOfTwo(D) ? 0 : W;
  for (; (row + W) * D + kBeyond <= rows * D; row += W) {
    PrefetchAhead<W * D * sizeof(T)>(x + row * D, 4096);
    group(x + row * D, row);
  }
  for (; row < rows; row += W) {
    T buffer[W * D + W] = {};
    for (std::int64_t i = 0; i < Min<std::int64_t>(rows - row, W) * D; ++i) {
      buffer[i] = x[row * D + i];
    }
    group(buffer, row);
  }
}

#include "kernels/cpu/few_targets_fused.h"
#include "kernels/cpu/few_targets_rolling.h"
#include "kernels/cpu/few_targets_tiled.h"

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

template <class T, class TY>
struct FewTargets {
  using C = Compute<T>;
  using V = Vec<C>;
  static constexpr int W = Lanes(static_cast<const C*>(nullptr));

  static void Prepare(const Problem& p, const Plan& plan, char* workspace) {
    if (p.d <= kNarrow) return;
    const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
    C* out = reinterpret_cast<C*>(workspace + plan.weights_offset);
    if (p.k > 4) return DotsOfEight<T>::PackWeights(w, p.d, p.k, out);
    const std::int64_t whole = p.d / W * W;
    for (std::int64_t t = 0; t < p.k; ++t, out += plan.padded_d) {
      for (std::int64_t j = 0; j < whole; ++j) out[j] = w[j * p.k + t];
      for (std::int64_t j = whole; j < plan.padded_d; ++j) {
        const std::int64_t column = ColumnOf<W>(p.d, j);
        out[j] = column < 0 ? C(0) : w[column * p.k + t];
      }
    }
  }

  static void Run(const Problem& p, const Plan& plan, char* workspace, int stage, int task,
                  int worker) {
    if (stage == 1) return Reduce(p, plan, workspace, task);
    double* partial =
        reinterpret_cast<double*>(workspace + plan.partials_offset) + task * plan.partial_stride;
    const std::int64_t begin = task * plan.slot_rows;
    const std::int64_t end = Min(begin + plan.slot_rows, p.n);
    static constexpr Inputs<C> kInputs = {Column, TransposeTargets, sizeof(TY)};
    if constexpr (sizeof(T) == sizeof(C)) {
      if (plan.packed_offset >= 0 && p.d <= Fused<T, TY>::kMaxAcross) {
        return Fused<T, TY>::PackedRows(p, plan, workspace, begin, end, partial);
      }
    }
    if (p.k == 1 && p.d > 0 &&
        p.d <= Max(Fused<T, TY>::kMaxAcross, Fused<T, TY>::kMaxVectors * W)) {
      return Fused<T, TY>::Rows(p, plan, workspace, begin, end, partial);
    }
    if constexpr (kVectorUnit) {
      if (p.k <= 4 && Rolling<T, 1>::Takes(p.d, p.k)) {
        using Fn = decltype(&Rolling<T, 1>::Rows);
        static constexpr Fn kTable[] = {Rolling<T, 1>::Rows, Rolling<T, 2>::Rows,
                                        Rolling<T, 3>::Rows, Rolling<T, 4>::Rows};
        return kTable[p.k - 1](p, plan, workspace, kInputs, begin, end, partial, worker);
      }
    }
    Tiled<T>::Rows(p, plan, workspace, kInputs, begin, end, partial, worker);
  }

  static void Pack(const Problem& p, const Plan& plan, char* workspace) {
    C* out = reinterpret_cast<C*>(workspace + plan.packed_offset);
    const T* x = static_cast<const T*>(p.x);
    C row[W];
    for (std::int64_t i = 0; i < RoundUp(p.n, W); ++i) {
      C* const lane = out + i / W * W * p.d + i % W;
      if (i < p.n) Widen<T>(x + i * p.d, row, p.d);
      for (std::int64_t j = 0; j < p.d; ++j) lane[j * W] = i < p.n ? row[j] : C(0);
    }
  }

 private:
  static const C* Column(const void* base, std::int64_t first, std::int64_t rows, C* buffer) {
    if (base == nullptr) return nullptr;
    const TY* from = static_cast<const TY*>(base) + first;
    if constexpr (sizeof(TY) == sizeof(C)) {
      return from;
    } else {
      Widen<TY>(from, buffer, rows);
      return buffer;
    }
  }

  static void TransposeTargets(const void* base, std::int64_t first, std::int64_t rows,
                               std::int64_t k, C* out, std::int64_t stride) {
    using TransposeFn = decltype(&Transpose<2, TY>);
    static constexpr TransposeFn kTranspose[] = {
        Transpose<2, TY>, Transpose<3, TY>, Transpose<4, TY>, Transpose<5, TY>,
        Transpose<6, TY>, Transpose<7, TY>, Transpose<8, TY>};
    kTranspose[k - 2](static_cast<const TY*>(base) + first * k, rows, out, stride);
  }

  // Adds the slots' partial sums in order and writes columns of the gradient; task 0 also the loss
  // and the intercept.
  static void Reduce(const Problem& p, const Plan& plan, char* workspace, int task) {
    const double* partials = reinterpret_cast<const double*>(workspace + plan.partials_offset);
    const auto sum = [&](std::int64_t i) {
      Compensated<double> total;
      for (int slot = 0; slot < plan.tasks[0]; ++slot) {
        total.Add(partials[slot * plan.partial_stride + i]);
      }
      return Value(total);
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
        if (j + 8 <= whole) {
          for (int lane = 0; lane < 8; ++lane) {
            grad[(j + lane) * p.k + t] = static_cast<C>(lanes[lane]);
          }
          continue;
        }
        for (std::int64_t lane = 0; lane < 8; ++lane) {
          const std::int64_t column =
              p.d <= kNarrow ? (j + lane < p.d ? j + lane : -1) : ColumnOf<W>(p.d, j + lane);
          if (column >= 0) grad[column * p.k + t] = static_cast<C>(lanes[lane]);
        }
      }
    }
  }
};

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
