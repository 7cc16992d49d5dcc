// The table of one instruction set, out of the templates. Included inside the unit's own namespace,
// after its vec_*.h.

template <class T, class TY>
constexpr Kernels KernelsOf(DType x_type, DType w_type) {
  return {x_type,
          w_type,
          {FewTargets<T, TY>::Prepare, FewTargets<T, TY>::Run},
          {ManyTargets<T, TY>::Prepare, ManyTargets<T, TY>::Run},
          Widen<TY>,
          Narrow<TY>,
          FewTargets<T, TY>::Pack};
}

constexpr KernelTable kTable = {
    KernelsOf<float, float>(DType::kFloat32, DType::kFloat32),
    KernelsOf<double, double>(DType::kFloat64, DType::kFloat64),
    KernelsOf<Half, Half>(DType::kFloat16, DType::kFloat16),
    KernelsOf<Half, float>(DType::kFloat16, DType::kFloat32),
    KernelsOf<BFloat16, BFloat16>(DType::kBFloat16, DType::kBFloat16),
    KernelsOf<BFloat16, float>(DType::kBFloat16, DType::kFloat32),
};
