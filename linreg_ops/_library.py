"""Finds and loads the op library, and says what is wrong when TensorFlow does not match it."""

from functools import cache
from pathlib import Path
from typing import Any

from . import _kernels

# TensorFlow is imported inside the functions: its import brings in the ops (see __init__.py), and
# they need this module complete.

_OP_LIBRARY = Path(__file__).with_name("_ops.so")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _mismatch(built: str, running: str) -> ImportError:
    return ImportError(
        f"linreg_ops was built against TensorFlow {built}, but TensorFlow {running} is running, "
        "and a library of ops works with the minor version it was built against only. "
        "Rebuild it for the TensorFlow that is installed, in its source folder: "
        "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation . "
        "(with cmake, ninja, pybind11 and setuptools installed)",
        name="linreg_ops",
        path=str(_OP_LIBRARY),
    )


@cache
def load() -> Any:
    """The generated wrappers of the ops, loaded once per process.

    Raises:
        ImportError: The library was built for another TensorFlow, or is missing.
    """
    import tensorflow as tf

    # Checked before the library is opened: one for another version can abort the process.
    built = str(_kernels.build_config()["tensorflow_version"])
    if _minor(built) != _minor(tf.__version__):
        raise _mismatch(built, tf.__version__)
    try:
        return tf.load_op_library(str(_OP_LIBRARY))
    except tf.errors.NotFoundError as error:
        if "undefined symbol" in str(error):
            raise _mismatch(built, tf.__version__) from error
        raise ImportError(
            f"the op library {_OP_LIBRARY} cannot be loaded: {error}. Reinstall linreg_ops.",
            name="linreg_ops",
            path=str(_OP_LIBRARY),
        ) from error


def build_info() -> dict[str, Any]:
    """What this copy of linreg_ops was built from, and what it uses on this machine.

    Returns:
        `version`; `tensorflow_version` and `tensorflow_distribution`, which the op library was
        built against; `tensorflow_running`; `compiler`; `isa`, the instruction set in use (the
        best one supported, or the one named by the environment variable `LINREG_OPS_ISA`);
        `isas`, every instruction set compiled in and whether this CPU supports it.

    >>> import linreg_ops as lo
    >>> lo.build_info()["isa"] in lo.build_info()["isas"]
    True
    """
    import tensorflow as tf

    return {
        **_kernels.build_config(),
        "tensorflow_running": tf.__version__,
        "isa": _kernels.active_isa(),
        "isas": _kernels.isas(),
    }
