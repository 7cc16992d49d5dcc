// Loss and gradient for more than kFewTargets targets: a correct placeholder, one row at a time in
// double. Included inside the unit's own namespace.

template <class T, class TY>
struct ManyTargets {
  using C = Compute<T>;

  static void Prepare(const Problem&, const Plan&, char*) {}

  static void Run(const Problem& p, const Plan&, char* workspace, int, int, int) {
    double* grad = reinterpret_cast<double*>(workspace);  // [d + intercept, k]
    const std::int64_t bias = p.intercept ? 1 : 0;
    for (std::int64_t i = 0; i < (p.d + bias) * p.k; ++i) grad[i] = 0;
    for (std::int64_t t = 0; t < p.k; ++t) p.loss[t] = 0;
    const C* w = static_cast<const C*>(p.w);
    for (std::int64_t i = 0; i < p.n; ++i) {
      const T* x = static_cast<const T*>(p.x) + i * p.d;
      const double s =
          p.sample_weight == nullptr ? 1 : One(static_cast<const TY*>(p.sample_weight) + i);
      for (std::int64_t t = 0; t < p.k; ++t) {
        double r = p.intercept ? w[t] : 0;
        for (std::int64_t j = 0; j < p.d; ++j) r += One(x + j) * w[(j + bias) * p.k + t];
        if (p.y != nullptr) r -= One(static_cast<const TY*>(p.y) + i * p.k + t);
        p.loss[t] += s * r * r;
        if (p.intercept) grad[t] += s * r;
        for (std::int64_t j = 0; j < p.d; ++j) grad[(j + bias) * p.k + t] += s * r * One(x + j);
      }
    }
    if (p.grad == nullptr) return;
    for (std::int64_t i = 0; i < (p.d + bias) * p.k; ++i) {
      static_cast<C*>(p.grad)[i] = static_cast<C>(grad[i]);
    }
  }

 private:
  template <class U>
  static double One(const U* p) {
    Compute<U> value;
    Widen<U>(p, &value, 1);
    return value;
  }
};
