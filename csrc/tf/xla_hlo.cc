#include "tf/xla_hlo.h"

#include <numeric>
#include <vector>

#include "tensorflow/compiler/tf2xla/type_util.h"
#include "xla/hlo/builder/lib/arithmetic.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/lib/loops.h"
#include "xla/hlo/builder/lib/slicing.h"
#include "xla/shape.h"

namespace linreg_ops {
namespace {

using xla::XlaOp;
using Dims = std::vector<std::int64_t>;

Dims DimsOf(XlaOp op) {
  const xla::Shape shape = op.builder()->GetShape(op).value();
  return Dims(shape.dimensions().begin(), shape.dimensions().end());
}

xla::PrimitiveType TypeOf(XlaOp op) { return op.builder()->GetShape(op).value().element_type(); }

Dims Iota(std::int64_t count) {
  Dims dims(count);
  std::iota(dims.begin(), dims.end(), std::int64_t{0});
  return dims;
}

XlaOp Sum(XlaOp value, const Dims& dims) {
  const xla::PrimitiveType type = TypeOf(value);
  return xla::Reduce(value, xla::Zero(value.builder(), type),
                     xla::CreateScalarAddComputation(type, value.builder()), dims);
}

// Σ over dimension `contracted` of x and the rows of v. Not in TensorFloat-32 or bfloat16, which
// some devices use for float32.
XlaOp Dot(XlaOp x, std::int64_t contracted, XlaOp v, std::int64_t batch_dims) {
  xla::DotDimensionNumbers dims;
  for (std::int64_t i = 0; i < batch_dims; ++i) {
    dims.add_lhs_batch_dimensions(i);
    dims.add_rhs_batch_dimensions(i);
  }
  dims.add_lhs_contracting_dimensions(contracted);
  dims.add_rhs_contracting_dimensions(batch_dims);
  xla::PrecisionConfig precision;
  precision.add_operand_precision(xla::PrecisionConfig::HIGHEST);
  precision.add_operand_precision(xla::PrecisionConfig::HIGHEST);
  return xla::DotGeneral(x, v, dims, &precision);
}

// One problem in its accumulators' type.
class Model {
 public:
  explicit Model(const HloProblem& p)
      : intercept_(p.intercept),
        matrix_(DimsOf(p.w).size() > 1),
        rows_(static_cast<std::int64_t>(DimsOf(p.x).size()) - 2),
        weight_rows_(DimsOf(p.w)[rows_]),
        type_(TypeOf(p.w) == xla::F64 ? xla::F64 : xla::F32),
        x_(Accumulator(p.x)) {
    if (p.y.valid()) y_ = Accumulator(p.y);
    if (p.sample_weight.valid()) sample_weight_ = Accumulator(p.sample_weight);
  }

  xla::PrimitiveType type() const { return type_; }
  XlaOp Accumulator(XlaOp value) const { return xla::ConvertElementType(value, type_); }

  // X W − Y: [..., n, k] or [n]; w in the accumulators' type.
  XlaOp Residual(XlaOp w) const {
    const XlaOp slope = intercept_ ? xla::SliceInDim(w, 1, weight_rows_, 1, rows_) : w;
    XlaOp r = Dot(x_, rows_ + 1, slope, rows_);
    if (intercept_) {
      const XlaOp row = xla::SliceInDim(w, 0, 1, 1, rows_);
      Dims dims = DimsOf(w), to = Iota(rows_);
      dims.erase(dims.begin() + rows_);
      if (matrix_) to.push_back(rows_ + 1);
      r = xla::Add(r, xla::Reshape(row, dims), to);
    }
    return y_.valid() ? xla::Sub(r, y_) : r;
  }

  // S R.
  XlaOp Weighted(XlaOp r) const {
    return sample_weight_.valid() ? xla::Mul(r, sample_weight_, Iota(rows_ + 1)) : r;
  }

  // ½ Σ R · S R in float64: one loss per problem, or per target.
  XlaOp Loss(XlaOp r, XlaOp weighted, bool per_target) const {
    const XlaOp terms =
        xla::Mul(xla::ConvertElementType(r, xla::F64), xla::ConvertElementType(weighted, xla::F64));
    Dims summed = {rows_};
    if (matrix_ && !per_target) summed.push_back(rows_ + 1);
    return xla::Mul(Sum(terms, summed), xla::ConstantR0<double>(r.builder(), 0.5));
  }

  // Xᵀ S R, of W's shape.
  XlaOp Gradient(XlaOp weighted) const {
    const XlaOp slope = Dot(x_, rows_, weighted, rows_);
    if (!intercept_) return slope;
    Dims row = DimsOf(slope);
    row[rows_] = 1;
    const XlaOp first = xla::Reshape(Sum(weighted, {rows_}), row);
    return xla::ConcatInDim(x_.builder(), {first, slope}, rows_);
  }

 private:
  const bool intercept_;
  const bool matrix_;        // W and Y have a dimension of targets
  const std::int64_t rows_;  // the number of batch dimensions, behind which come X's, W's, R's rows
  const std::int64_t weight_rows_;
  const xla::PrimitiveType type_;
  const XlaOp x_;
  XlaOp y_, sample_weight_;
};

}  // namespace

HloLossGrad LossAndGrad(const HloProblem& problem, bool loss_per_target) {
  const Model model(problem);
  const xla::PrimitiveType type = TypeOf(problem.w);
  const XlaOp r = model.Residual(model.Accumulator(problem.w));
  const XlaOp weighted = model.Weighted(r);
  return {xla::ConvertElementType(model.Loss(r, weighted, loss_per_target), type),
          xla::ConvertElementType(model.Gradient(weighted), type)};
}

absl::StatusOr<HloDescent> Descend(const HloProblem& problem, const HloRates& rates, XlaOp momentum,
                                   std::int64_t num_steps) {
  xla::XlaBuilder* const builder = problem.x.builder();
  const xla::PrimitiveType type = TypeOf(problem.w);
  const xla::PrimitiveType accumulator = Model(problem).type();
  const XlaOp w = xla::ConvertElementType(problem.w, accumulator);
  Dims losses_dims = DimsOf(problem.x);
  losses_dims.pop_back();
  losses_dims.back() = num_steps + 1;
  const XlaOp no_losses = xla::Broadcast(xla::Zero(builder, accumulator), losses_dims);

  // A loop's body sees nothing but what the loop carries.
  enum Carried { kW, kV, kLosses, kRates, kMomentum, kX, kY, kSampleWeight };
  std::vector<XlaOp> carried = {w,        xla::ZerosLike(w), no_losses, rates.value,
                                momentum, problem.x,         problem.y};
  if (problem.sample_weight.valid()) carried.push_back(problem.sample_weight);
  const auto inside = [&problem](absl::Span<const XlaOp> values) {
    HloProblem p{values[kX], values[kW], values[kY], {}, problem.intercept};
    if (problem.sample_weight.valid()) p.sample_weight = values[kSampleWeight];
    return p;
  };
  const auto record = [&](const Model& model, XlaOp r, XlaOp step, XlaOp losses) {
    Dims one = losses_dims;
    one.back() = 1;
    std::vector<XlaOp> start(one.size(), xla::Zero(r.builder(), xla::S64));
    start.back() = step;
    const XlaOp loss = model.Accumulator(model.Loss(r, model.Weighted(r), false));
    return xla::DynamicUpdateSlice(losses, xla::Reshape(loss, one), start);
  };
  const auto step = [&](XlaOp t, absl::Span<const XlaOp> values,
                        xla::XlaBuilder*) -> absl::StatusOr<std::vector<XlaOp>> {
    std::vector<XlaOp> next(values.begin(), values.end());
    const Model model(inside(values));
    const XlaOp r = model.Residual(values[kW]);
    const XlaOp rate = rates.per_step
                           ? xla::Reshape(xla::DynamicSlice(values[kRates], {t}, {1}), Dims())
                           : values[kRates];
    next[kLosses] = record(model, r, t, values[kLosses]);
    next[kV] = xla::Sub(xla::Mul(values[kV], model.Accumulator(values[kMomentum])),
                        xla::Mul(model.Gradient(model.Weighted(r)), model.Accumulator(rate)));
    next[kW] = xla::Add(values[kW], next[kV]);
    return next;
  };
  absl::StatusOr<std::vector<XlaOp>> looped =
      xla::ForEachIndex(num_steps, xla::S64, step, carried, "gradient_descent", builder);
  if (!looped.ok()) return looped.status();
  const Model model(inside(*looped));
  const XlaOp last = record(model, model.Residual((*looped)[kW]),
                            xla::ConstantR0<std::int64_t>(builder, num_steps), (*looped)[kLosses]);
  return HloDescent{xla::ConvertElementType((*looped)[kW], type),
                    xla::ConvertElementType(last, type)};
}

}  // namespace linreg_ops
