"""Least squares in TensorFlow at the speed of memory.

The L2 loss of a linear model and its gradient, ½‖XW - Y‖² and Xᵀ(XW - Y), in one pass over X.

>>> import numpy as np
>>> import linreg_ops as lo
>>> x = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], np.float32)
>>> loss, grad = lo.linear_l2_loss_and_grad(x, np.zeros(2, np.float32), np.ones(3, np.float32))
>>> float(loss), grad.numpy().tolist()
(1.5, [-3.0, -3.0])
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if PathFinder.find_spec("linreg_ops._kernels", __path__) is None:
    # The folder of a clone, which Python finds first when it is started there: its modules are then
    # those of the installed copy.
    _clone = Path(__file__).resolve().parent
    _elsewhere = [entry for entry in sys.path if Path(entry).resolve() != _clone.parent]
    _installed = PathFinder.find_spec("linreg_ops", _elsewhere)
    _folders = list(_installed.submodule_search_locations or []) if _installed else []
    if PathFinder.find_spec("linreg_ops._kernels", _folders) is None:
        raise ImportError(
            f"{_clone} is the source folder of linreg_ops, without its compiled libraries, and no "
            f"installed copy is beside it: run `pip install .` in {_clone.parent}"
        )
    __path__[:] = _folders

import wrapt

if TYPE_CHECKING:
    from . import keras as keras
    from . import kernels as kernels
    from . import plotting as plotting
    from . import reference as reference
    from . import training as training
    from ._library import build_info
    from ._patch import patch, unpatch
    from .estimator import LinearRegression, Ridge
    from .ops import (
        Descent,
        LossAndGrad,
        gradient_descent,
        linear_l2_loss,
        linear_l2_loss_and_grad,
    )
    from .stock import stock_ops

# What `import *` brings: no module, whose name could be one of the user's (keras).
__all__ = [
    "Descent",
    "LinearRegression",
    "LossAndGrad",
    "Ridge",
    "build_info",
    "gradient_descent",
    "linear_l2_loss",
    "linear_l2_loss_and_grad",
    "patch",
    "stock_ops",
    "unpatch",
]

# Where each public name lives. Modules are imported at first use, so that `linreg_ops.kernels`
# comes in milliseconds, without TensorFlow.
_HOME = {
    "Descent": "ops",
    "LossAndGrad": "ops",
    "gradient_descent": "ops",
    "linear_l2_loss": "ops",
    "linear_l2_loss_and_grad": "ops",
    "LinearRegression": "estimator",
    "Ridge": "estimator",
    "build_info": "_library",
    "patch": "_patch",
    "stock_ops": "stock",
    "unpatch": "_patch",
}
_MODULES = ("keras", "kernels", "plotting", "reference", "training")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    elif name == "__version__":
        value = import_module("._kernels", __name__).build_config()["version"]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])


# A process that has TensorFlow gets the ops too, whichever of the two it imports first: loading a
# SavedModel needs them registered, and touches no name of this package. A `.keras` file needs the
# classes in the same way.
wrapt.when_imported("tensorflow")(lambda _: import_module(".ops", __name__))


@wrapt.when_imported("keras")
def _register_keras_classes(module: Any) -> None:
    if module.config.backend() == "tensorflow":
        import_module(".keras", __name__)
