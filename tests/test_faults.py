"""Memory and disks that are full, forks, ends and very many calls: errors, not crashes or leaks.

Ctrl-C and SIGKILL are in test_interrupts.py and test_sources.py, hostile sizes in
test_hostile_sizes.py.
"""

import contextlib
import os
import resource
import signal

import numpy as np
import pytest
from fresh import run
from typer import Exit

from linreg_ops import _files

# ---------------------------------------------------------------------------------------- memory

# `without_memory(call, errors)`: it raises them where 8 MiB of address space are left. A call has
# been made on something small before, so that what is loaded and begun once is there.
MEMORY = """
    import resource
    import numpy as np

    MIB = 1 << 20

    def without_memory(call, errors):
        pages = int(open("/proc/self/statm").read().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 8 * MIB, hard))
        try:
            call()
        except errors:
            return
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        raise AssertionError("there was enough memory")
"""


def test_no_memory_for_kernels_is_a_memory_error():
    run(
        MEMORY
        + """
    from linreg_ops import kernels

    def calls(d, k):
        x, w, y = np.ones((2, d), np.float32), np.ones((d, k), np.float32), np.zeros((2, k))
        y = y.astype(np.float32)
        return {
            "gradient": lambda: kernels.loss_and_grad(x, w, y),
            "descent": lambda: kernels.gradient_descent(x, w, y, 1e-9, 2),
            "losses": lambda: kernels.gradient_descent(x[:, :2].copy(), w[:2], y, 1e-9, d),
            "state": lambda: kernels.GramState(min(d, 5000)),
        }

    for call in calls(9, 2).values():
        call()
    large = calls(8 * MIB, 1)
    for name, call in large.items():
        without_memory(call, MemoryError)
    large["gradient"]()
    large["descent"]()
    # A state that has no memory for its work is what it was.
    rows = np.random.default_rng(0).standard_normal((6000, 1000))
    state = kernels.GramState(1000).update(rows[:1000])
    without_memory(lambda: state.update(rows[1000:]), MemoryError)
    assert state.rows == 1000
    assert (state.update(rows[1000:]).result().xx == kernels.gram(rows).xx).all()
    """
    )


@pytest.mark.parametrize("solver", ["exact", "gram", "gd"])
def test_no_memory_for_the_estimator_is_a_memory_error(solver):
    run(
        MEMORY
        + f"""
    import linreg_ops as lo
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2000, 2500)), rng.standard_normal(2000)
    model = lo.LinearRegression(solver="{solver}", num_steps=2, tol=1.0)
    if "{solver}" == "gd":
        model.set_params(learning_rate=1e-6)
    small = model.fit(x[:500, :3], y[:500]).coef_
    without_memory(lambda: model.fit(x, y), MemoryError)
    assert (model.fit(x[:500, :3], y[:500]).coef_ == small).all()
    """,
        extras=True,
        PYTHONWARNINGS="ignore",
    )


def test_no_memory_for_the_ops_is_resource_exhausted():
    run(
        MEMORY
        + """
    import tensorflow as tf
    import linreg_ops as lo

    def calls(d):
        x, w, y = tf.ones([2, d]), tf.ones([d]), tf.zeros([2])
        short = x[:, :2], w[:2], y
        return {
            "pair": lambda: lo.linear_l2_loss_and_grad(x, w, y),
            "descent": lambda: lo.gradient_descent(x, w, y, 1e-9, 2),
            "losses": lambda: lo.gradient_descent(*short, 1e-9, d),
            "gram": lambda: lo.gram(x[:, :5000], y),
            "graph": tf.function(lambda: lo.linear_l2_loss_and_grad(x, w, y)),
        }

    for call in calls(9).values():
        call()
    large = calls(8 * MIB)
    for call in large.values():
        without_memory(call, tf.errors.ResourceExhaustedError)
    for name in ("pair", "descent", "graph"):
        large[name]()
    """,
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_ENABLE_ONEDNN_OPTS="0",  # whose allocator waits ten seconds for each
    )


# --------------------------------------------------------------------------------- forks and ends


def test_kernels_work_in_a_fork_of_a_process_that_ran_tensorflow():
    """Eager ops do not, stock's neither: TensorFlow's threads are gone. See troubleshooting."""
    run(
        """
    import os
    import numpy as np
    import tensorflow as tf
    import linreg_ops as lo
    from linreg_ops import kernels

    rng = np.random.default_rng(0)
    x, w, y = rng.standard_normal((100_000, 10)), np.ones(10), np.zeros(100_000)
    expected = lo.linear_l2_loss_and_grad(x, w, y)
    whole = lo.LinearRegression(solver="gram").fit(x, x @ w)
    child = os.fork()
    if child == 0:
        loss, grad = kernels.loss_and_grad(x, w, y)
        same = loss == expected.loss.numpy() and (grad == expected.grad.numpy()).all()
        model = lo.LinearRegression(solver="gram").fit(x, x @ w)
        os._exit(0 if same and (model.coef_ == whole.coef_).all() else 1)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """,
        timeout=120,
        extras=True,
        TF_CPP_MIN_LOG_LEVEL="3",
    )


@pytest.mark.parametrize("call", ["gradient_descent(x, w, y, 0.0, 500_000_000)", "gram(x)"])
def test_the_process_ends_while_an_op_runs(call):
    """As it does while a stock op runs; the op is not waited for."""
    run(
        f"""
    import threading, time
    import tensorflow as tf
    import linreg_ops as lo

    x, w, y = tf.zeros([20_000, 200]), tf.zeros([200]), tf.zeros([20_000])

    def work():
        while True:
            lo.{call}

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.5)
    """,
        timeout=90,
        TF_CPP_MIN_LOG_LEVEL="3",
    )


# ---------------------------------------------------------------------------------------- growth

GROWTH = """
    import sys
    import numpy as np
    from linreg_ops import kernels

    x, w, y = np.ones((9, 3)), np.ones(3), np.zeros(9)
    state = kernels.GramState(3, 1)

    def descents():
        return kernels.gradient_descent(x, w, y, 0.1, 2)

    def refused():
        try:
            kernels.loss_and_grad(x, w, y[:5])
        except ValueError:
            pass

    calls = [lambda: kernels.loss_and_grad(x, w, y), descents, refused,
             lambda: state.update(x, y), lambda: state.result()]
    if {tensorflow}:
        import tensorflow as tf
        import linreg_ops as lo

        xt, wt, yt = map(tf.constant, (x, w, y))
        graph = tf.function(lambda: lo.linear_l2_loss_and_grad(xt, wt, yt))
        calls = [lambda: lo.linear_l2_loss_and_grad(xt, wt, yt), graph,
                 lambda: lo.gradient_descent(xt, wt, yt, 0.1, 2), lambda: lo.gram(xt, yt)]

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    for call in calls:
        for _ in range({calls} // 10):
            call()
        before = resident()
        for _ in range({calls}):
            call()
        grown = resident() - before
        # Ten bytes a call would be a leak; the allocator's own pages are not. (TensorFlow's grow
        # by 220 KiB, and no further. 20 bytes a call of the kernels show, 60 of the ops.)
        assert grown < 10 * {calls} + (400 << 10), (call, grown)
"""


@pytest.mark.parametrize(
    ("tensorflow", "calls"),
    [
        (False, 40_000),
        (True, 8_000),
        pytest.param(False, 1_000_000, marks=pytest.mark.slow),
        pytest.param(True, 1_000_000, marks=pytest.mark.slow),
    ],
)
def test_many_calls_do_not_grow(tensorflow, calls):
    program = GROWTH.replace("{tensorflow}", str(tensorflow)).replace("{calls}", str(calls))
    run(program, timeout=600, TF_CPP_MIN_LOG_LEVEL="3")


# --------------------------------------------------------------------------------- files and disks


@contextlib.contextmanager
def full_disk():
    """Files end after 1,000 bytes, with an OSError as on a disk that is full.

    Not a fixture, under which pytest could write no more of its own report to a file either.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def state():
    from linreg_ops import GramState

    rng = np.random.default_rng(0)
    return GramState().update(rng.standard_normal((2000, 5)), np.ones(2000))


def picture():
    from linreg_ops import plotting

    return plotting.figure(1)[0]


def model():
    from linreg_ops.cli.design import Feature, Kind
    from linreg_ops.cli.model import Model

    features = [Feature(f"column {i}", Kind.NUMBER, ()) for i in range(100)]
    numbers = np.ones((100, 1))
    return Model(["y"], features, True, np.ones(1), numbers, np.zeros(1), "exact")


def predictions():
    return np.ones((1000, 1))


def saved(what, path):
    from linreg_ops import plotting
    from linreg_ops.cli import predict

    if what is picture:
        return plotting.save(what(), path)
    if what is predictions:
        return predict._write(model(), what(), path)
    return what().save(path)


WRITERS = [
    (state, "state.npz"),
    (picture, "picture.png"),
    (model, "model.json"),
    (predictions, "predictions.csv"),
]


# Python 3.10's ZipFile fails once more when it is deleted.
@pytest.mark.filterwarnings("ignore:.*ZipFile.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("what", "name"), WRITERS)
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_full_disk_leaves_nothing_half_written(what, name, before, tmp_path, capsys):
    path = tmp_path / name
    if before is not None:
        path.write_bytes(before)
    with pytest.raises((OSError, Exit)) as caught, full_disk():
        saved(what, path)
    # The command line says it in a line, and ends.
    assert isinstance(caught.value, OSError) or "cannot be written" in capsys.readouterr().err
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else [name])


@pytest.mark.parametrize(("what", "name"), WRITERS)
def test_files_are_replaced_with_their_rights_and_through_links(what, name, tmp_path):
    path, link = tmp_path / name, tmp_path / f"link-{name}"
    path.write_bytes(b"before")
    path.chmod(0o640)
    link.symlink_to(path)
    saved(what, link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(path.read_bytes()) > 1000
    assert sorted(os.listdir(tmp_path)) == sorted([name, link.name])


def test_a_device_is_written_to_as_it_is(tmp_path):
    link = tmp_path / "picture.png"
    link.symlink_to("/dev/null")
    with _files.whole(link) as path:
        assert str(path) == "/dev/null"
    assert link.is_symlink()


def test_an_interrupted_file_is_what_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def write():
        with _files.whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]
