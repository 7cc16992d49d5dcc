"""The mutants of the Python layer; see mutants.py. Each has once survived the tests."""

ESTIMATOR = "pytest tests/test_estimator.py"
TRUTH = "pytest tests/test_estimator_truth.py"
SOLVERS = "pytest tests/test_solvers.py"

# name, file, old, new, tests[, why it lives]
PYTHON = [
    (
        "estimator: weights that are all zero pass",
        "linreg_ops/estimator.py",
        "        if not s.any():\n",
        "        if False:\n",
        ESTIMATOR + " -k input_errors",
    ),
    (
        "estimator: the threshold of a constant column is 10⁵ times higher",
        "linreg_ops/solvers/problem.py",
        "np.flatnonzero(deviation == 0)",
        "np.flatnonzero(deviation < 1e5 * EPS)",
        SOLVERS + " -k 'small_spread or constant'",
    ),
    (
        "estimator: y's spread is that of rows of weight zero too",
        "linreg_ops/solvers/problem.py",
        "y = self.y if self.s is None else self.y[self.s > 0]",
        "y = self.y",
        ESTIMATOR + " -k zero_weights",
    ),
    (
        "estimator: the recurrence of conjugate gradients is trusted",
        "linreg_ops/solvers/cg.py",
        "            return Refined(best[0], best[1], np.asarray(best[2] <= limit))",
        "            return Refined(best[0], best[1], np.ones(problem.k, bool))",
        SOLVERS + " -k 'not_converged or no_fit_is_worse or any_condition'",
    ),
    (
        "estimator: what conjugate gradients found is not checked",
        "linreg_ops/solvers/__init__.py",
        "converged=found.converged & least(problem, found.w, tol, EPS)",
        "converged=found.converged",
        SOLVERS,
    ),
    (
        "estimator: the loss of sums may be negative",
        "linreg_ops/solvers/state.py",
        "        return np.asarray(np.maximum(left, 0.0))",
        "        return np.asarray(left)",
        "pytest tests/test_state.py",
    ),
    (
        "estimator: the loss of refinement may be negative",
        "linreg_ops/solvers/refine.py",
        "            loss = np.maximum(loss - gained, 0.0)",
        "            loss = loss - gained",
        SOLVERS + " -k 'nearly_perfect or digits'",
    ),
    (
        "estimator: the weights of a fit that diverged are those of standardized columns",
        "linreg_ops/solvers/gd.py",
        "            intercept, coef = self.problem.to_original(self.to_problem(error.w))",
        "            intercept, coef = np.zeros(self.problem.k), np.asarray(error.w)",
        ESTIMATOR + " -k divergence",
    ),
    (
        "estimator: the centre is not of few bits",
        "linreg_ops/solvers/problem.py",
        "shift = np.rint(mean / unit) * unit",
        "shift = mean",
        SOLVERS + " -k 'small_spread or timestamps';" + TRUTH,
    ),
    (
        "estimator: one target's curvature stops all",
        "linreg_ops/solvers/cg.py",
        "out=np.zeros_like(squared), where=seen)",
        "out=np.zeros_like(squared), where=seen & np.all(seen))",
        SOLVERS,
    ),
    (
        "training: growth is named a step late",
        "linreg_ops/training.py",
        "        while growing > 1 and",
        "        while growing > 2 and",
        "pytest tests/test_training.py",
    ),
    (
        "ops: w of float32 goes with any x",
        "linreg_ops/ops.py",
        "not (w_dtype == tf.float32 and dtype.size == 2)",
        "not w_dtype == tf.float32",
        "pytest tests/test_ops.py -k 'dtype or float64'",
    ),
    (
        "ops: the name of a loss is dropped",
        "linreg_ops/ops.py",
        "        loss, _ = _ops.linreg_l2_loss_grad("
        "x, w, y, weights, intercept=intercept, name=name)",
        "        loss, _ = _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept)",
        "pytest tests/test_ops.py -k 'name or shape_inference'",
    ),
    (
        "ops: the name of a loss and gradient is dropped",
        "linreg_ops/ops.py",
        "        loss, grad = _ops.linreg_l2_loss_grad("
        "x, w, y, weights, intercept=intercept, name=name)",
        "        loss, grad = _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept)",
        "pytest tests/test_ops.py -k 'name or shape_inference'",
    ),
    (
        "ops: the name of a descent is dropped",
        "linreg_ops/ops.py",
        "                x, w, y, rate, steps, momentum, weights, intercept=intercept, name=name",
        "                x, w, y, rate, steps, momentum, weights, intercept=intercept",
        "pytest tests/test_ops.py -k 'name or shape_inference'",
    ),
    (
        "pfor: losses per target of a w of rank 1 are not summed",
        "linreg_ops/_pfor.py",
        "if self.rank_1 or not self.loss_per_target:",
        "if not self.loss_per_target:",
        "pytest tests/test_pfor.py -k per_target",
    ),
    (
        "stock: sums of 16 bits",
        "linreg_ops/stock.py",
        "wide = tf.float32 if w.dtype.size == 2 else w.dtype",
        "wide = w.dtype",
        "pytest tests/test_saved_model.py -k stock",
    ),
    (
        "stock: the end of an inner block ends the outer one",
        "linreg_ops/stock.py",
        "        _active.reset(token)",
        "        _active.set(False)",
        "pytest tests/test_saved_model.py -k stock",
    ),
    (
        "stock: momentum goes through float32",
        "linreg_ops/stock.py",
        "    momentum = tf.convert_to_tensor(momentum, tf.float64)",
        "    momentum = tf.cast(tf.cast(momentum, tf.float32), tf.float64)",
        "pytest tests/test_saved_model.py -k stock",
    ),
    (
        "stock: the rank is known from w alone",
        "linreg_ops/stock.py",
        "rank = y.shape.rank if w.shape.rank is None else w.shape.rank",
        "rank = w.shape.rank",
        "pytest tests/test_saved_model.py -k stock",
    ),
    (
        "Keras: the kernel is cast to 16 bits",
        "linreg_ops/keras.py",
        'tf.convert_to_tensor(getattr(kernel, "value", kernel))',
        "tf.convert_to_tensor(kernel)",
        "pytest tests/test_keras.py -k mixed",
    ),
    (
        "Keras: a bias initializer is not saved",
        "linreg_ops/keras.py",
        'if k != "loss"}',
        'if k not in ("loss", "bias_initializer")}',
        "pytest tests/test_keras.py -k save_and_load;"
        "pytest tests/test_keras_options.py -k layer_arguments",
    ),
    (
        "Keras: an empty batch is divided by zero",
        "linreg_ops/keras.py",
        "tf.math.divide_no_nan(loss, tf.cast(divisor, loss.dtype))",
        "tf.divide(loss, tf.cast(divisor, loss.dtype))",
        "pytest tests/test_keras.py -k errors;pytest tests/test_keras_options.py -k losses",
    ),
    (
        "command line: the demo prints the first loss",
        "linreg_ops/cli/demo.py",
        'f"{result.losses[-1]:.6g}" for result in results',
        'f"{result.losses[0]:.6g}" for result in results',
        "pytest tests/test_cli.py -k demo",
    ),
    (
        "command line: spaces in names are kept",
        "linreg_ops/cli/tables.py",
        "[name.strip() for name in table.column_names]",
        "list(table.column_names)",
        "pytest tests/test_cli_tables.py -k spaces",
    ),
    (
        "command line: logs that were caught are lost when the import fails",
        "linreg_ops/cli/terminal.py",
        "            os.write(terminal, caught.read())\n",
        "            caught.read()\n",
        "pytest tests/test_cli.py -k 'terminal or logs'",
    ),
    (
        "command line: a picture that cannot be written is found late",
        "linreg_ops/cli/terminal.py",
        "    if target.is_dir() or not (os.access(place, os.W_OK) and "
        "os.access(existing, os.W_OK)):\n",
        "    if False:\n",
        "pytest tests/test_cli.py -k demo_refuses;pytest tests/test_cli_tables.py -k picture",
    ),
    (
        "library: patch versions are compared too",
        "linreg_ops/_library.py",
        "        if _minor(version) == _minor(running):",
        "        if version == running:",
        "pytest tests/test_mismatch.py",
    ),
]
