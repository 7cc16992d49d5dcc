// The vector vocabulary in plain C++, for CPUs without a fused multiply-add: the same order of
// operations, but a·b + c rounds twice, so its bits differ from the other instruction sets'. (An
// exact fma in software costs about fifty times as much.) What each operation does is said in
// vec_avx512.h. Included inside the unit's own namespace.

template <class C, int kLanes>
struct Array {
  C v[kLanes];
};
using F32x16 = Array<float, 16>;
using F64x8 = Array<double, 8>;

constexpr int kAccumulators = 4;

template <class C, int N, class F>
inline Array<C, N> Each(F f) {
  Array<C, N> r;
  for (int i = 0; i < N; ++i) r.v[i] = f(i);
  return r;
}

inline float ToFloat(float a) { return a; }
inline double ToFloat(double a) { return a; }
inline float ToFloat(BFloat16 a) { return FloatOf(a); }
inline float ToFloat(Half a) { return FloatOf(a); }

template <class C, int N>
inline Array<C, N> Zero(Array<C, N>) {
  return Each<C, N>([](int) { return C(0); });
}
inline F32x16 Set(float a) {
  return Each<float, 16>([=](int) { return a; });
}
inline F64x8 Set(double a) {
  return Each<double, 8>([=](int) { return a; });
}

inline F64x8 Load(const double* p) {
  return Each<double, 8>([=](int i) { return p[i]; });
}
template <class T>
inline F32x16 Load(const T* p) {
  return Each<float, 16>([=](int i) { return ToFloat(p[i]); });
}
template <class T>
inline F32x16 SetPair(const T* p) {
  return Each<float, 16>([=](int i) { return ToFloat(p[i % 2]); });
}
inline F64x8 LoadFirst(const double* p, int m) {
  return Each<double, 8>([=](int i) { return i < m ? p[i] : 0; });
}
template <class T>
inline F32x16 LoadFirst(const T* p, int m) {
  return Each<float, 16>([=](int i) { return i < m ? ToFloat(p[i]) : 0; });
}
template <class C, int N>
inline Array<C, N> DropFirst(Array<C, N> a, int first) {
  return Each<C, N>([&](int i) { return i < first ? C(0) : a.v[i]; });
}
template <class C, int N>
inline Array<C, N> KeepFirst(Array<C, N> a, int m) {
  return Each<C, N>([&](int i) { return i < m ? a.v[i] : C(0); });
}
template <class T>
inline F64x8 LoadF64(const T* p) {
  return Each<double, 8>([=](int i) { return double(ToFloat(p[i])); });
}

template <class C, int N>
inline void Store(C* p, Array<C, N> a) {
  for (int i = 0; i < N; ++i) p[i] = a.v[i];
}
template <class C>
inline void StoreF64(C* p, F64x8 a) {
  for (int i = 0; i < 8; ++i) p[i] = static_cast<C>(a.v[i]);
}

template <class C, int N>
inline Array<C, N> Add(Array<C, N> a, Array<C, N> b) {
  return Each<C, N>([&](int i) { return a.v[i] + b.v[i]; });
}
template <class C, int N>
inline Array<C, N> Sub(Array<C, N> a, Array<C, N> b) {
  return Each<C, N>([&](int i) { return a.v[i] - b.v[i]; });
}
template <class C, int N>
inline Array<C, N> Mul(Array<C, N> a, Array<C, N> b) {
  return Each<C, N>([&](int i) { return a.v[i] * b.v[i]; });
}
template <class C, int N>
inline Array<C, N> Fma(Array<C, N> a, Array<C, N> b, Array<C, N> c) {
  return Each<C, N>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}

inline F64x8 Low(F32x16 a) {
  return Each<double, 8>([&](int i) { return double(a.v[i]); });
}
inline F64x8 High(F32x16 a) {
  return Each<double, 8>([&](int i) { return double(a.v[i + 8]); });
}
inline F32x16 Round(F64x8 low, F64x8 high) {
  return Each<float, 16>([&](int i) { return float(i < 8 ? low.v[i] : high.v[i - 8]); });
}

template <class C, int N>
inline void Unzip(Array<C, N> a, Array<C, N> b, Array<C, N>& even, Array<C, N>& odd) {
  const auto at = [&](int i) { return i < N ? a.v[i] : b.v[i - N]; };
  const Array<C, N> e = Each<C, N>([&](int i) { return at(2 * i); });
  const Array<C, N> o = Each<C, N>([&](int i) { return at(2 * i + 1); });
  even = e;
  odd = o;
}

template <int D, int P>
inline F64x8 LoadRows(const double* p) {
  return Each<double, 8>([=](int i) { return p[i % P < D ? i / P * D + i % P : 0]; });
}
template <int D, int P, class T>
inline F32x16 LoadRows(const T* p) {
  return Each<float, 16>([=](int i) { return ToFloat(p[i % P < D ? i / P * D + i % P : 0]); });
}

[[gnu::always_inline]] inline void Prefetch(const void* p) { __builtin_prefetch(p); }
// Of what is used once: leaves the second-level cache to others.
[[gnu::always_inline]] inline void PrefetchOnce(const void* p) { __builtin_prefetch(p, 0, 0); }
