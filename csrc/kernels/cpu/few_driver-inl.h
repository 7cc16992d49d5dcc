// What the routes of up to eight targets share: slots of rows, the packed weights, the reduction.
// Part of one instruction set's unit: see vec-inl.h.
//
// Rows are cut into slots, the tasks of the first stage. Within a slot a row is used twice, for its
// dot products with w and, scaled by its residuals, for the gradient, while it is in registers or
// in the cache. Sums over rows climb a ladder: some hundred rows in C, then double over a slot,
// then a fixed-order sum over slots in the second stage, so that n = 10^8 loses nothing.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/kernel.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/vec-inl.h"

namespace linreg_ops {
namespace cpu {
namespace {

// One task of the first stage, and where its sums go.
template <class T>
struct Slot {
  using C = Compute<T>;
  static constexpr int W = kLanes<T>;

  const Problem& p;
  const Plan& plan;
  char* const workspace;
  char* const scratch;  // of this worker
  const std::int64_t begin, end;
  double* const sums;  // [2][k]: Σ s r² and Σ s r
  double* const grad;  // [k][padded_d]

  Slot(const Problem& problem, const Plan& whole_plan, char* space, int task, int worker)
      : p(problem),
        plan(whole_plan),
        workspace(space),
        scratch(space + plan.scratch_offset + worker * plan.scratch_bytes),
        begin(task * plan.slot_rows),
        end(Min(begin + plan.slot_rows, p.n)),
        sums(reinterpret_cast<double*>(space + plan.partials_offset) + task * plan.partial_stride),
        grad(sums + plan.partial_head) {}

  const C* Weights() const { return static_cast<const C*>(p.w) + (p.intercept ? p.k : 0); }
  C* PackedWeights() const { return reinterpret_cast<C*>(workspace + plan.weights_offset); }
  C* Scratch(std::int64_t offset) const { return reinterpret_cast<C*>(scratch + offset); }
  C Bias(std::int64_t t) const { return p.intercept ? static_cast<const C*>(p.w)[t] : C(0); }

  // One target: y and sample_weight where they are.
  Residuals<T> OneResidual() const {
    return {{p.y, p.wide_y}, {p.sample_weight, p.wide_y}, Bias(0), {}};
  }
  // k targets, padded to P: y and sample_weight of a tile's rows, copied where they have to be
  // converted or padded.
  template <int P>
  GroupResiduals<C, P> ResidualsOf(std::int64_t row, std::int64_t rows) const {
    C bias[W];
    for (int i = 0; i < W; ++i) bias[i] = i % P < p.k ? Bias(i % P) : C(0);
    const bool wide = p.wide_y || std::is_same_v<T, C>;
    const C* y = wide ? PaddedY<P, C>(row, rows) : PaddedY<P, T>(row, rows);
    return {Load(bias), y, PaddedWeights(row, rows), {}};
  }

  // Fetches y of rows, which nothing else does while X is read: it comes a tile at a time.
  void FetchTargets(std::int64_t row, std::int64_t rows) const {
    if (p.y == nullptr) return;
    const std::int64_t size = p.k * static_cast<std::int64_t>(p.wide_y ? sizeof(C) : sizeof(T));
    const char* const y = static_cast<const char*>(p.y) + row * size;
    for (std::int64_t i = 0; i < rows * size; i += 64) PrefetchOnce(y + i);
  }

  // Σ s r² and Σ s r of P targets, lane by lane.
  template <int P>
  void WriteTotals(const Totals& totals) const {
    for (std::int64_t t = 0; t < p.k; ++t) {
      sums[t] = Value<P>(totals.loss, t);
      sums[p.k + t] = Value<P>(totals.bias, t);
    }
  }
  // The gradient, from double [d][W]: its columns' sums, lane by lane.
  template <int P>
  void WriteLanes(const double* lanes) const {
    for (std::int64_t t = 0; t < p.k; ++t) {
      for (std::int64_t j = 0; j < plan.padded_d; ++j) {
        grad[t * plan.padded_d + j] = j < p.d ? SumLanes<C, P>(lanes + j * W, t) : 0;
      }
    }
  }

 private:
  // y of a tile's rows as C [rows][P]; null if there is none.
  template <int P, class TY>
  const C* PaddedY(std::int64_t row, std::int64_t rows) const {
    constexpr int kRows = W / P;
    if (p.y == nullptr) return nullptr;
    const TY* y = static_cast<const TY*>(p.y) + row * p.k;
    const std::int64_t left = (p.n - row) * p.k;
    if (std::is_same_v<TY, C> && p.k == P && RoundUp(rows, kRows) * P <= left) {
      return reinterpret_cast<const C*>(y);
    }
    C* const out = Scratch(plan.y_offset);
    constexpr int kLeast = P / 2 + 1;
    static constexpr decltype(&PadRows<P, P, TY>) kTable[] = {
        PadRows<P, P, TY>, PadRows<Max(P - 1, kLeast), P, TY>, PadRows<Max(P - 2, kLeast), P, TY>,
        PadRows<Max(P - 3, kLeast), P, TY>};
    kTable[P - p.k](y, left, rows, out);
    return out;
  }
  // Rows of K elements, of which `left` can be read, to rows of P.
  template <int K, int P, class TY>
  static void PadRows(const TY* y, std::int64_t left, std::int64_t rows, C* out) {
    constexpr int kRows = W / P;
    std::int64_t i = 0;
    for (; i < rows && i * K + 2 * W <= left; i += kRows) {
      Store(out + i * P, LoadRows<K, P>(y + i * K));
    }
    for (; i < rows; i += kRows) {
      TY buffer[2 * W] = {};
      for (std::int64_t j = 0; j < Min<std::int64_t>(W, left - i * K); ++j)
        buffer[j] = y[i * K + j];
      Store(out + i * P, LoadRows<K, P>(buffer));
    }
  }

  // Sample weights of a tile's rows as C, a vector of zeros behind; null if there are none.
  const C* PaddedWeights(std::int64_t row, std::int64_t rows) const {
    if (p.sample_weight == nullptr) return nullptr;
    C* const out = Scratch(plan.s_offset);
    if (p.wide_y || std::is_same_v<T, C>) {
      Widen<C>(static_cast<const C*>(p.sample_weight) + row, out, rows);
    } else {
      Widen<T>(static_cast<const T*>(p.sample_weight) + row, out, rows);
    }
    Store(out + rows, Vec<C>{});
    return out;
  }
};

// of(P): the constant that k targets are padded to.
template <class Of>
void WithPadded(std::int64_t k, const Of& of) {
  if (k <= 2) return of(std::integral_constant<int, 2>{});
  if (k <= 4) return of(std::integral_constant<int, 4>{});
  of(std::integral_constant<int, 8>{});
}

// Sums over rows that climb from C to double.
template <class C>
class Ladder {
 public:
  // `size`: of both arrays, which become zeros; whole vectors.
  Ladder(C* narrow, double* wide, std::int64_t size) : narrow_(narrow), wide_(wide), size_(size) {
    for (std::int64_t i = 0; i < size; ++i) {
      narrow[i] = 0;
      wide[i] = 0;
    }
  }

  // After `rows` more rows are in the narrow sums: whether it was time for them to go into the wide
  // ones, as they do from `most` rows on.
  bool Climb(std::int64_t rows, std::int64_t most) {
    rows_ += rows;
    if (rows_ < most) return false;
    for (std::int64_t i = 0; i < size_; i += kLanes<C>) {
      AddWide(wide_ + i, Load(narrow_ + i));
      Store(narrow_ + i, Vec<C>{});
    }
    rows_ = 0;
    return true;
  }

 private:
  C* const narrow_;
  double* const wide_;
  const std::int64_t size_;
  std::int64_t rows_ = 0;
};

// ---------------------------------------------------------------------------------- tiles of rows

// Transposes x [rows, D] into out [D][stride], zeros behind the last row up to a whole vector.
template <int D, class T>
void Transpose(const void* from, std::int64_t rows, Compute<T>* out, std::int64_t stride) {
  using V = Vec<Compute<T>>;
  constexpr int W = kLanes<T>;
  const T* x = static_cast<const T*>(from);
  const auto group = [&](const T* at, std::int64_t row) {
    V column[PowerOfTwo(D)];
    LoadColumns<D>(at, column);
#pragma GCC unroll 8
    for (int j = 0; j < D; ++j) Store(out + j * stride + row, column[j]);
  };
  std::int64_t row = 0;
  constexpr int kBeyond = D == PowerOfTwo(D) ? 0 : W;
  for (; (row + W) * D + kBeyond <= rows * D; row += W) group(x + row * D, row);
  for (; row < rows; row += W) {
    T buffer[W * D + W] = {};
    for (std::int64_t i = 0; i < Min<std::int64_t>(rows - row, W) * D; ++i) {
      buffer[i] = x[row * D + i];
    }
    group(buffer, row);
  }
}
template <class T>
void TransposeRows(const T* x, std::int64_t rows, std::int64_t d, Compute<T>* out,
                   std::int64_t stride) {
  static constexpr decltype(&Transpose<1, T>) kTable[] = {
      Transpose<1, T>, Transpose<2, T>, Transpose<3, T>, Transpose<4, T>,
      Transpose<5, T>, Transpose<6, T>, Transpose<7, T>, Transpose<8, T>};
  if (d > 0) kTable[d - 1](x, rows, out, stride);
}

// Sample weights of rows as C, in `buffer` if they have to be converted; null if there are none.
template <class T>
const Compute<T>* WideWeights(const Problem& p, std::int64_t row, std::int64_t rows,
                              Compute<T>* buffer) {
  using C = Compute<T>;
  if (p.sample_weight == nullptr) return nullptr;
  if (p.wide_y || std::is_same_v<T, C>) return static_cast<const C*>(p.sample_weight) + row;
  Widen<T>(static_cast<const T*>(p.sample_weight) + row, buffer, rows);
  return buffer;
}

// ------------------------------------------------------------------------------------ the stages

// w in vectors along the row, C [k][padded_d], each position what ColumnOf says.
template <class T>
void PackWeights(const Problem& p, const Plan& plan, char* workspace) {
  using C = Compute<T>;
  const C* w = static_cast<const C*>(p.w) + (p.intercept ? p.k : 0);
  C* out = reinterpret_cast<C*>(workspace + plan.weights_offset);
  for (std::int64_t t = 0; t < p.k; ++t, out += plan.padded_d) {
    for (std::int64_t j = 0; j < plan.padded_d; ++j) {
      const std::int64_t column = ColumnOf<kLanes<T>>(p.d, j);
      out[j] = column < 0 ? C(0) : w[column * p.k + t];
    }
  }
}

// Adds the slots' partial sums in order and writes columns of the gradient; task 0 also the loss
// and the intercept's gradient.
template <class T>
void Reduce(const Problem& p, const Plan& plan, char* workspace, int task) {
  using C = Compute<T>;
  constexpr int W = kLanes<T>;
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
  const std::int64_t in_place = p.d < W ? p.d : p.d / W * W;  // positions that are their columns
  for (std::int64_t t = 0; t < p.k; ++t) {
    for (std::int64_t j = begin; j < end; j += 8) {
      const double* from = partials + plan.partial_head + t * plan.padded_d + j;
      F64x8 total = Load(from);
      for (int slot = 1; slot < plan.tasks[0]; ++slot) {
        total = Add(total, Load(from + slot * plan.partial_stride));
      }
      if (p.k == 1 && j + 8 <= in_place) {
        StoreF64(grad + j, total);
        continue;
      }
      double lanes[8];
      Store(lanes, total);
      for (std::int64_t lane = 0; lane < 8; ++lane) {
        const std::int64_t column = j + 8 <= in_place ? j + lane : ColumnOf<W>(p.d, j + lane);
        if (column >= 0) grad[column * p.k + t] = static_cast<C>(lanes[lane]);
      }
    }
  }
}

// The two stages of an engine that has Rows(slot).
template <class T, class RowsOf>
void RunSlots(const Problem& p, const Plan& plan, char* workspace, int stage, int task,
              int worker) {
  if (stage == 1) return Reduce<T>(p, plan, workspace, task);
  RowsOf::Rows(Slot<T>(p, plan, workspace, task, worker));
}

}  // namespace
}  // namespace cpu
}  // namespace linreg_ops
