// Placeholder of the CPU kernels: the fused pass as plain loops.
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {
namespace cpu {
namespace {

template <typename T>
void Pass(const Data& data, const T* w, double* losses, double* grad) {
  const auto [n, d, k, intercept] = data.shape;
  const T* x = static_cast<const T*>(data.x);
  const T* y = static_cast<const T*>(data.y);
  const T* sw = static_cast<const T*>(data.sample_weight);
  std::fill(losses, losses + k, 0.0);
  std::fill(grad, grad + data.shape.weight_rows() * k, 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    const double s = sw ? static_cast<double>(sw[i]) : 1.0;
    for (std::int64_t j = 0; j < k; ++j) {
      double r = intercept ? w[j] : 0.0;
      for (std::int64_t l = 0; l < d; ++l) {
        r += static_cast<double>(x[i * d + l]) * static_cast<double>(w[(l + intercept) * k + j]);
      }
      if (y) r -= y[i * k + j];
      losses[j] += 0.5 * s * r * r;
      if (intercept) grad[j] += s * r;
      for (std::int64_t l = 0; l < d; ++l) {
        grad[(l + intercept) * k + j] += static_cast<double>(x[i * d + l]) * s * r;
      }
    }
  }
}

template <typename Body>
Status WithType(const Data& data, Body body) {
  if (data.x_type == DType::kFloat32) return body(float{});
  if (data.x_type == DType::kFloat64) return body(double{});
  return {Status::Code::kUnsupported, "16-bit types have no kernel yet"};
}

std::int64_t Doubles(const Data& data, int arrays) {
  return (data.shape.weight_rows() * arrays + 1) * data.shape.k;
}

}  // namespace

std::int64_t WorkspaceBytes(const Data& data, int) { return Doubles(data, 2) * 8; }
std::int64_t DescentWorkspaceBytes(const Data& data, int) { return Doubles(data, 3) * 8; }

Status ComputeLossGrad(const Data& data, const LossGrad& out, const Threads&, void* workspace,
                       std::int64_t, const char*) {
  if (Status status = Validate(data); !status.ok()) return status;
  return WithType(data, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t k = data.shape.k, size = data.shape.weight_rows() * k;
    double* grad = static_cast<double*>(workspace);
    double* losses = grad + size;
    Pass<T>(data, static_cast<const T*>(data.w), losses, grad);
    double total = 0;
    T* loss = static_cast<T*>(out.loss);
    for (std::int64_t j = 0; j < k; ++j) {
      total += losses[j];
      if (loss && out.loss_per_target) loss[j] = static_cast<T>(losses[j]);
    }
    if (loss && !out.loss_per_target) *loss = static_cast<T>(total);
    for (std::int64_t i = 0; out.grad && i < size; ++i) {
      static_cast<T*>(out.grad)[i] = static_cast<T>(grad[i]);
    }
    return Status();
  });
}

Status ComputeDescent(const Data& data, const Descent& descent, const Threads&, void* workspace,
                      std::int64_t, const char*) {
  if (Status status = Validate(data, descent); !status.ok()) return status;
  return WithType(data, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t k = data.shape.k, size = data.shape.weight_rows() * k;
    double* grad = static_cast<double*>(workspace);
    double* losses = grad + size;
    T* velocity = reinterpret_cast<T*>(losses + k);
    T* w = static_cast<T*>(descent.w);
    std::fill(velocity, velocity + size, T{0});
    if (size > 0) std::copy_n(static_cast<const T*>(data.w), size, w);
    for (std::int64_t t = 0;; ++t) {
      if (descent.cancelled && descent.cancelled(descent.cancelled_context)) {
        return Status(Status::Code::kCancelled, "cancelled");
      }
      Pass<T>(data, w, losses, grad);
      double total = 0;
      for (std::int64_t j = 0; j < k; ++j) total += losses[j];
      static_cast<T*>(descent.losses)[t] = static_cast<T>(total);
      if (t == descent.num_steps) return Status();
      const T rate = static_cast<T>(descent.rates[descent.num_rates == 1 ? 0 : t]);
      for (std::int64_t i = 0; i < size; ++i) {
        velocity[i] =
            static_cast<T>(descent.momentum) * velocity[i] - rate * static_cast<T>(grad[i]);
        w[i] += velocity[i];
      }
    }
  });
}

std::vector<Isa> Isas() { return {{"scalar", true}}; }

Status ActiveIsa(const char** name) {
  *name = "scalar";
  return Status();
}

}  // namespace cpu
}  // namespace linreg_ops
