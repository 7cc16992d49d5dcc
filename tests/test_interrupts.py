"""Ctrl-C, other signals, cancelled steps, and the end of the process, while the kernels work.

The calls here would take minutes to days: what does not end them runs into the children's limits.
"""

import pytest
from fresh import run

# Sends a signal to the process in half a second, and asks a call for what its handler raises.
PRELUDE = """
    import os, signal, threading, time
    import numpy as np

    x, w, y = (np.zeros(s, np.float32) for s in ((1000, 100), (100,), (1000,)))

    class Alarm(Exception):
        pass

    def raises(error, number, call):
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        try:
            call()
        except error:
            return
        raise AssertionError("the call ended by itself")

    def alarm(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, alarm)
"""
KERNELS = PRELUDE + "    from linreg_ops import kernels\n"
TENSORFLOW = (
    PRELUDE
    + """
    import tensorflow as tf
    import linreg_ops as lo
    x, w, y = map(tf.constant, (x, w, y))
"""
)
STEPS = 500_000_000  # 2 GB of losses, never written to their end


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("error", "number"), [("KeyboardInterrupt", "INT"), ("Alarm", "ALRM")])
def test_signals_end_the_kernels(threads, error, number):
    run(
        KERNELS
        + f"""
    columns = np.zeros((6000, 6000), np.float32)
    calls = {{
        # One pass that takes many minutes: this must end by the time limit where it is not heard.
        "pass": lambda: kernels.loss_and_grad(
            columns, columns, isa="scalar", num_threads={threads}
        ),
        "descent": lambda: kernels.gradient_descent(x, w, y, 0.1, {STEPS}, num_threads={threads}),
        # Equal terms, and a loop without a kernel.
        "ones": lambda: kernels.gradient_descent(
            np.zeros((2**40, 0), np.float32), w[:1], None, 0.1, {STEPS} * 4, intercept=True
        ),
    }}
    for call in calls.values():
        raises({error}, signal.SIG{number}, call)
    # The kernels are as usable as before.
    assert kernels.gradient_descent(x, w, y, 0.1, 3)[1].shape == (4,)
    """,
        timeout=60,
    )


def test_a_signal_whose_handler_returns_ends_nothing():
    run(
        KERNELS
        + """
    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    for delay in (0.1, 0.2):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    x = np.ones((1000, 100), np.float32)
    w, losses = kernels.gradient_descent(x, w, y, 0.0, 200_000)
    assert np.isfinite(losses).all()
    assert len(losses) == 200_001
    """,
        timeout=60,
    )


def test_a_signal_ends_an_eager_descent():
    run(
        TENSORFLOW
        + f"""
    for error, number in ((KeyboardInterrupt, signal.SIGINT), (Alarm, signal.SIGALRM)):
        raises(error, number, lambda: lo.gradient_descent(x, w, y, 0.1, {STEPS}))
        raises(error, number, lambda: lo.gradient_descent(x, w, y, 0.1, tf.constant({STEPS})))
    x, w, y = tf.zeros([200_000, 1, 2]), tf.zeros([200_000, 2]), tf.zeros([200_000, 1])
    w, y = w[..., None], y[..., None]
    raises(KeyboardInterrupt, signal.SIGINT, lambda: lo.gradient_descent(x, w, y, 0.1, 1_000))
    assert threading.active_count() == 1 + sum(
        isinstance(thread, threading.Timer) for thread in threading.enumerate()
    )
    """,
        timeout=90,
        TF_CPP_MIN_LOG_LEVEL="3",
    )


def test_ctrl_c_keeps_the_steps_that_are_finished():
    """All of them: the weights are those of a descent of so many steps, to the bit."""
    run(
        TENSORFLOW
        + """
    import itertools
    from linreg_ops import kernels
    from linreg_ops.training import TrainingInterrupted

    ways = {
        "kernels": kernels.gradient_descent,
        "op": lo.gradient_descent,
        "training": lo.training.train,
    }
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((2000, 100)), np.zeros(100), rng.standard_normal(2000)
    for dtype, momentum, way in itertools.product(
        ("float32", "float64", "float16"), (0.0, 0.5), ways
    ):
        case = f"{way} {dtype} {momentum}"
        x, w, y = (array.astype(dtype) for array in numbers)

        def descend(steps):
            return ways[way](x, w, y, learning_rate=1e-5, num_steps=steps, momentum=momentum)

        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            descend(100_000_000)
        except TrainingInterrupted as interrupt:
            step = interrupt.step
            assert step > 100, case
            again_w, again_losses = descend(step)
            np.testing.assert_array_equal(interrupt.w, again_w, case)
            np.testing.assert_array_equal(interrupt.losses, np.asarray(again_losses)[:-1], case)
        else:
            raise AssertionError(f"{case}: the call ended by itself")
    """,
        timeout=300,
        TF_CPP_MIN_LOG_LEVEL="3",
    )


def test_a_long_eager_descent_is_as_a_short_one():
    """It runs in another thread; results, devices, tapes and errors are those of this one."""
    run(
        """
    import numpy as np
    import tensorflow as tf
    import linreg_ops as lo
    from linreg_ops import _interruptible

    ran, run = [], _interruptible.run
    _interruptible.run = lambda *arguments: ran.append(1) or run(*arguments)
    rng = np.random.default_rng(0)
    x, w, y = (rng.standard_normal(s).astype(np.float32) for s in ((1000, 100), (100,), (1000,)))
    s = np.ones(1000, np.float32)
    steps = 2_000

    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    for device in ("CPU:0", "CPU:1"):
        with tf.device(device):
            got = lo.gradient_descent(
                x, w, y, 1e-4, steps, intercept=False, sample_weight=s, momentum=0.5
            )
            assert got.w.device.endswith(device) and got.losses.device.endswith(device)
    assert len(ran) == 2
    short = tf.function(lambda: lo.gradient_descent(
        x, w, y, 1e-4, steps, intercept=False, sample_weight=s, momentum=0.5
    ))()
    assert len(ran) == 2
    np.testing.assert_array_equal(got.w, short.w)
    np.testing.assert_array_equal(got.losses, short.losses)
    assert isinstance(got, lo.Descent)

    # A tape refuses it as it does a short one.
    w = tf.Variable(w)
    with tf.GradientTape() as tape:
        new_w, _ = lo.gradient_descent(x, w, y, 1e-4, steps)
    assert len(ran) == 3
    try:
        tape.gradient(new_w, w)
    except LookupError as error:
        assert "gradient_descent is not differentiable" in str(error)
    else:
        raise AssertionError
    # So does an error.
    for wrong in ({"w": w[:5]}, {"momentum": [0.1]}, {"sample_weight": s[:5]}):
        try:
            lo.gradient_descent(**{"x": x, "w": w, "y": y, "learning_rate": 0.1} | wrong,
                                num_steps=steps)
        except tf.errors.InvalidArgumentError as error:
            assert list(wrong)[0] in str(error)
        else:
            raise AssertionError
    """,
        TF_CPP_MIN_LOG_LEVEL="3",
    )


def test_a_cancelled_step_ends_a_long_pass():
    """One that takes minutes: by one thread, in scalar code. See check_kernels.cc for the rest."""
    run(
        """
    import threading
    import tensorflow as tf
    import linreg_ops
    from tensorflow.python.eager import cancellation, context, execute

    tf.config.threading.set_intra_op_parallelism_threads(1)
    attributes = ("Tx", tf.float32.as_datatype_enum, "Tw", tf.float32.as_datatype_enum)
    attributes += ("num_sample_weights", 0, "intercept", False)
    x = tf.zeros([5000, 5000])
    for op, inputs, outputs in (("L2LossGrad", [x] * 3, 2), ("HessianVectorProduct", [x] * 2, 1)):
        manager = cancellation.CancellationManager()
        threading.Timer(1, manager.start_cancel).start()
        try:
            execute.execute_with_cancellation(
                f"Linreg>{op}", outputs, inputs, attributes, context.context(), manager
            )
        except tf.errors.CancelledError as error:
            assert "cancelled" in str(error)  # our word for it, not TensorFlow's
        else:
            raise AssertionError(op)
    """,
        timeout=180,
        TF_CPP_MIN_LOG_LEVEL="3",
        LINREG_OPS_ISA="scalar",
    )


def test_a_thread_that_keeps_the_gil_does_not_stop_the_kernels():
    """To listen to signals takes the GIL: by time, not at each of a thousand steps."""
    run(
        KERNELS
        + """
    import ctypes
    x, w, y = (np.zeros(s, np.float32) for s in ((4000, 1000), (1000,), (4000,)))
    keep_gil = ctypes.PyDLL(None).usleep

    def busy():
        while True:
            keep_gil(200_000)

    threading.Thread(target=busy, daemon=True).start()
    # At one poll a step this would take 200 s.
    kernels.gradient_descent(x, w, y, 0.1, 1000)
    os._exit(0)
    """,
        timeout=90,
    )


@pytest.mark.parametrize("call", ["gradient_descent(x, w, y, 0.1, 200)", "loss_and_grad(x, w, y)"])
def test_the_process_ends_quietly_while_daemon_threads_compute(call):
    program = f"""
    import threading, time
    import numpy as np
    from linreg_ops import kernels
    x, w, y = (np.zeros(s, np.float32) for s in ((20_000, 100), (100,), (20_000,)))

    def work():
        while True:
            kernels.{call}

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)
    """
    for _ in range(10):
        assert run(program, timeout=60).stderr == ""
