// Threads for the raw kernels, where there is no TensorFlow to bring its own.
#pragma once

#include "kernels/l2_loss_grad.h"

namespace linreg_ops {

// The processors this process may run on.
int AvailableProcessors();

// `count` threads of one pool for the process, started when first needed. A forked child, which
// inherits no threads, starts its own.
cpu::Threads PoolThreads(int count);

}  // namespace linreg_ops
