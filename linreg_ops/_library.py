"""Finds the op library for the TensorFlow that runs, and says what is wrong when there is none."""

from functools import cache
from pathlib import Path
from typing import Any

from . import _kernels

# TensorFlow is imported inside the functions: its import brings in the ops (see __init__.py), and
# they need this module complete.


SUPPORTED = "2.19 to 2.21"  # what a build takes: cmake/find_tensorflow.py


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def libraries() -> dict[str, Path]:
    """The op libraries of this copy, by the version of TensorFlow that each was built against."""
    found = Path(__file__).parent.glob("_ops_tf*.so")
    return {path.stem.removeprefix("_ops_tf"): path for path in sorted(found)}


def _mismatch(running: str) -> ImportError:
    built = ", ".join(libraries()) or "none (the op libraries are missing)"
    return ImportError(
        f"linreg_ops was built against TensorFlow {built}, but TensorFlow {running} is running, "
        "and a library of ops works with the minor version it was built against only. "
        "Rebuild it for the TensorFlow that is installed: "
        "pip install --force-reinstall --no-deps --no-cache-dir . "
        f"in a checkout of linreg_ops, which supports TensorFlow {SUPPORTED}",
        name="linreg_ops",
    )


@cache
def load() -> Any:
    """The generated wrappers of the ops, loaded once per process.

    Raises:
        ImportError: No library was built for the TensorFlow that runs, or it cannot be loaded.
    """
    import tensorflow as tf

    # Chosen before any is opened: one for another version can abort the process.
    library = _for(tf.__version__)
    if library is None:
        raise _mismatch(tf.__version__)
    try:
        return tf.load_op_library(str(library))
    except tf.errors.NotFoundError as error:
        if "undefined symbol" in str(error):
            raise _mismatch(tf.__version__) from error
        raise ImportError(
            f"the op library {library} cannot be loaded: {error}. Reinstall linreg_ops.",
            name="linreg_ops",
            path=str(library),
        ) from error


def _for(running: str) -> Path | None:
    for version, path in libraries().items():
        if _minor(version) == _minor(running):
            return path
    return None


def build_info() -> dict[str, Any]:
    """What this copy of linreg_ops was built from, and what it uses on this machine.

    Returns:
        `version`; `tensorflow_versions`, which an op library was built against each;
        `tensorflow_running`; `compiler`; `cuda_version`, empty without CUDA; `isa`, the
        instruction set in use (the best one supported, or the one named by the environment
        variable `LINREG_OPS_ISA`); `isas`, every instruction set compiled in and whether this CPU
        supports it.

    >>> import linreg_ops as lo
    >>> lo.build_info()["isa"] in lo.build_info()["isas"]
    True
    """
    import tensorflow as tf

    return {
        **_kernels.build_config(),
        "tensorflow_versions": list(libraries()),
        "tensorflow_running": tf.__version__,
        "isa": _kernels.active_isa(),
        "isas": _kernels.isas(),
    }
