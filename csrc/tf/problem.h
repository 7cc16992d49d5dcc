// From an op's inputs to the kernels' problem: the checks that eager execution, which runs no shape
// function, relies on. Shared by every device.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cpu/for_each_problem.h"
#include "kernels/l2_loss_grad.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor_shape.h"

namespace linreg_ops {

absl::Status ToAbsl(const Status& status);

// A batch of problems, and the shapes of its results.
struct Problem : Batch {
  tensorflow::TensorShape batch_shape;
  tensorflow::TensorShape weight_shape;
};

// Whether there is a kernel for a pair of types, or for an op's attributes Tx and Tw.
absl::Status CheckTypes(tensorflow::DataType x, tensorflow::DataType w);
absl::Status CheckTypes(tensorflow::OpKernelConstruction* ctx);

// What the shapes alone say: sizes and shapes, no pointers. `y` and `sample_weight` may be null.
// The error names the argument, what it got and what it needs.
absl::Status CheckShapes(const tensorflow::TensorShape& x, const tensorflow::TensorShape& w,
                         const tensorflow::TensorShape* y,
                         const tensorflow::TensorShape* sample_weight, bool intercept,
                         Problem* problem);

// The whole problem, checked.
absl::Status MakeProblem(const tensorflow::Tensor& x, const tensorflow::Tensor& w,
                         const tensorflow::Tensor* y, const tensorflow::Tensor* sample_weight,
                         bool intercept, Problem* problem);

// The list input "sample_weight" holds none or one tensor.
absl::Status GetSampleWeight(tensorflow::OpKernelContext* ctx,
                             const tensorflow::Tensor** sample_weight);

// Whether a saved gradient has w's shape.
absl::Status CheckSavedGradient(const tensorflow::TensorShape& grad, const Problem& problem);

absl::Status CheckNumSteps(const tensorflow::TensorShape& num_steps);

// The shapes of learning_rate and momentum, and the value of num_steps.
absl::Status CheckDescent(const tensorflow::TensorShape& learning_rate, std::int64_t num_steps,
                          const tensorflow::TensorShape& momentum);

// learning_rate, num_steps and momentum, from host memory; `descent` borrows learning_rate's data.
absl::Status MakeDescent(const tensorflow::Tensor& learning_rate,
                         const tensorflow::Tensor& num_steps, const tensorflow::Tensor& momentum,
                         Descent* descent);

}  // namespace linreg_ops
