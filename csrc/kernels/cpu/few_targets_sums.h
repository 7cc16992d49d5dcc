// Residuals and what is summed over them. Included by few_targets.h.

// Sums over rows of one target that the residuals yield, lane by lane. Two of each, so that two
// vectors of doubles in a row do not wait for one another.
struct Sums {
  F64x8 loss[2] = {Zero(F64x8{}), Zero(F64x8{})};
  F64x8 bias[2] = {Zero(F64x8{}), Zero(F64x8{})};
};

inline double Plus(double a, double b) { return a + b; }
inline double Minus(double a, double b) { return a - b; }
inline F64x8 Plus(F64x8 a, F64x8 b) { return Add(a, b); }
inline F64x8 Minus(F64x8 a, F64x8 b) { return Sub(a, b); }

// A sum with its rounding errors summed beside it, for sums of so many parts that errors in the
// last bits would add up.
template <class V>
struct Compensated {
  V sum = Minus(V{}, V{});
  V error = sum;

  [[gnu::always_inline]] void Add(V a) {
    const V total = Plus(sum, a);
    const V added = Minus(total, sum);
    error = Plus(error, Plus(Minus(sum, Minus(total, added)), Minus(a, added)));
    sum = total;
  }
};
// Sums that overflowed have no error to correct.
inline double Value(const Compensated<double>& a) {
  return a.error - a.error == 0 ? a.sum + a.error : a.sum;
}

// The Sums of blocks of rows, added up.
struct Totals {
  Compensated<F64x8> loss, bias;

  // Takes what `sums` has, and leaves it empty.
  void Take(Sums& sums) {
    loss.Add(Add(sums.loss[0], sums.loss[1]));
    bias.Add(Add(sums.bias[0], sums.bias[1]));
    sums = Sums{};
  }
};
inline double Value(const Compensated<F64x8>& a) {
  double sum[8], error[8];
  Store(sum, a.sum);
  Store(error, a.error);
  Compensated<double> total;
  for (int i = 0; i < 8; ++i) total.Add(sum[i]);
  for (int i = 0; i < 8; ++i) total.error += error[i];
  return Value(total);
}

template <class C>
inline const C* At(const C* base, std::int64_t i) {
  return base == nullptr ? nullptr : base + i;
}

[[gnu::always_inline]] inline void AddResiduals(F32x16 sr, F32x16 r, Sums& sums) {
  const F64x8 low = Low(sr), high = High(sr);
  sums.loss[0] = Fma(low, Low(r), sums.loss[0]);
  sums.loss[1] = Fma(high, High(r), sums.loss[1]);
  sums.bias[0] = Add(sums.bias[0], low);
  sums.bias[1] = Add(sums.bias[1], high);
}
// Of weight one: half the conversions.
[[gnu::always_inline]] inline void AddResiduals(F32x16 r, Sums& sums) {
  const F64x8 low = Low(r), high = High(r);
  sums.loss[0] = Fma(low, low, sums.loss[0]);
  sums.loss[1] = Fma(high, high, sums.loss[1]);
  sums.bias[0] = Add(sums.bias[0], low);
  sums.bias[1] = Add(sums.bias[1], high);
}
[[gnu::always_inline]] inline void AddResiduals(F64x8 sr, F64x8 r, Sums& sums) {
  sums.loss[0] = Fma(sr, r, sums.loss[0]);
  sums.bias[0] = Add(sums.bias[0], sr);
}
[[gnu::always_inline]] inline void AddResiduals(F64x8 r, Sums& sums) { AddResiduals(r, r, sums); }

// r = dot + bias − y; loss += s r²; returns s r. Zero from row `valid` on. In double: the
// subtraction is exact where prediction and target nearly cancel.
template <class C>
[[gnu::always_inline]] inline F64x8 Residual(F64x8 dot, F64x8 bias, const C* y, const C* s,
                                             int valid, Sums& sums) {
  F64x8 r = Add(dot, bias);
  if (y != nullptr) r = Sub(r, LoadF64(y));
  if (valid < 8) r = KeepFirst(r, valid);
  const F64x8 sr = s != nullptr ? Mul(LoadF64(s), r) : r;
  AddResiduals(sr, r, sums);
  return sr;
}
