// Route plain: loss and gradient as their formula has them, for CPUs without a fused multiply-add.
// It is the file to read first, and shares no arithmetic with the vector engines, which are tested
// against it.
//
// Everything is computed in double. Rows are cut into slots, the tasks of the first stage; a slot's
// sums are made of blocks of rows, added up with their rounding errors, so that n = 10^8 loses
// nothing; the second stage adds the slots up in order.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/kernel.h"

namespace linreg_ops {
namespace cpu {
namespace {

constexpr std::int64_t kBlockRows = 64;
// After so many terms of sums it is asked whether to go on: a fraction of a second on any CPU.
constexpr std::int64_t kOften = 1 << 24;

double Wide(double a) { return a; }
double Wide(float a) { return a; }
double Wide(Half a) { return FloatOf(a); }
double Wide(BFloat16 a) { return FloatOf(a); }

// sum + error += a, without an error of its own (Knuth's TwoSum).
void AddExactly(double a, double* sum, double* error) {
  const double total = *sum + a, added = total - *sum;
  *error += (*sum - (total - added)) + (a - added);
  *sum = total;
}

// A sum that is not finite has no error to correct.
double Corrected(double sum, double error) { return error - error == 0 ? sum + error : sum; }

// An array of sums is [d + 2, k]: Σ s r², Σ s r, Σ s r x.
template <class T, class TY>
struct Plain {
  using C = Compute<T>;  // what w and the gradient are stored in

  static std::int64_t SumsOf(const Problem& p) { return (p.d + 2) * p.k; }

  static void Run(const Problem& p, const Plan& plan, char* workspace, int stage, int task,
                  int worker) {
    double* const slots = reinterpret_cast<double*>(workspace + plan.partials_offset);
    if (stage == 1) return Reduce(p, plan, slots);
    double* const scratch =
        reinterpret_cast<double*>(workspace + plan.scratch_offset + worker * plan.scratch_bytes);
    const std::int64_t begin = task * plan.slot_rows;
    Slot(p, begin, std::min(begin + plan.slot_rows, p.n), scratch,
         slots + task * plan.partial_stride);
  }

 private:
  static void Slot(const Problem& p, std::int64_t begin, std::int64_t end, double* scratch,
                   double* slot) {
    const std::int64_t size = SumsOf(p);
    double* const r = scratch;              // [k]
    double* const sums = scratch + p.k;     // of a block
    std::fill(slot, slot + 2 * size, 0.0);  // sums, then their errors
    std::int64_t work = 0;                  // since it was last asked whether to go on
    for (std::int64_t block = begin; block < end; block += kBlockRows) {
      std::fill(sums, sums + size, 0.0);
      for (std::int64_t i = block; i < std::min(block + kBlockRows, end); ++i) {
        Row(p, i, r, sums);
        if (p.cancelled == nullptr || (work += size) < kOften) continue;
        if (p.cancelled(p.cancelled_context)) return;
        work = 0;
      }
      for (std::int64_t j = 0; j < size; ++j) AddExactly(sums[j], slot + j, slot + size + j);
    }
  }

  static void Row(const Problem& p, std::int64_t i, double* r, double* sums) {
    const std::int64_t d = p.d, k = p.k;
    const T* const x = static_cast<const T*>(p.x) + i * d;
    const C* w = static_cast<const C*>(p.w);
    for (std::int64_t t = 0; t < k; ++t) r[t] = p.intercept ? Wide(w[t]) : 0.0;
    if (p.intercept) w += k;
    for (std::int64_t j = 0; j < d; ++j) {
      const double xj = Wide(x[j]);
      for (std::int64_t t = 0; t < k; ++t) r[t] += xj * Wide(w[j * k + t]);
    }
    const TY* const y = static_cast<const TY*>(p.y);
    const double s =
        p.sample_weight != nullptr ? Wide(static_cast<const TY*>(p.sample_weight)[i]) : 1.0;
    for (std::int64_t t = 0; t < k; ++t) {
      if (y != nullptr) r[t] -= Wide(y[i * k + t]);
      sums[t] += s * r[t] * r[t];
      r[t] *= s;
      sums[k + t] += r[t];
    }
    if (p.grad == nullptr) return;
    double* const grad = sums + 2 * k;
    for (std::int64_t j = 0; j < d; ++j) {
      const double xj = Wide(x[j]);
      for (std::int64_t t = 0; t < k; ++t) grad[j * k + t] += r[t] * xj;
    }
  }

  static void Reduce(const Problem& p, const Plan& plan, const double* slots) {
    const std::int64_t size = SumsOf(p), k = p.k;
    C* const grad = static_cast<C*>(p.grad);
    for (std::int64_t j = 0; j < size; ++j) {
      double sum = 0, error = 0;
      for (int slot = 0; slot < plan.tasks[0]; ++slot) {
        const double* const at = slots + slot * plan.partial_stride + j;
        AddExactly(Corrected(at[0], at[size]), &sum, &error);
      }
      const double value = Corrected(sum, error);
      if (j < k) {
        p.loss[j] = value;
      } else if (grad != nullptr && (p.intercept || j >= 2 * k)) {
        grad[j - (p.intercept ? k : 2 * k)] = static_cast<C>(value);
      }
    }
  }
};

template <class T>
void Widen(const void* from, void* to, std::int64_t count) {
  using C = Compute<T>;
  for (std::int64_t i = 0; i < count; ++i) {
    static_cast<C*>(to)[i] = static_cast<C>(Wide(static_cast<const T*>(from)[i]));
  }
}

constexpr KernelTable kTable = TableOf([](auto x, auto w, DTypePair types) {
  using TY = decltype(w);
  return Kernels{types, {{nullptr, Plain<decltype(x), TY>::Run}}, Widen<TY>, Narrow<TY>, nullptr};
});

}  // namespace

const KernelTable& kScalarKernels = kTable;

}  // namespace cpu
}  // namespace linreg_ops
