"""Arguments that scikit-learn's linear models have and these do not: refused, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
Model = TypeVar("Model")

INSTEAD = {
    "copy_X": "X is never written to",
    "gcv_mode": "one way serves X of every shape",
    "max_iter": "num_steps limits the steps of solver='cg', and the other solvers need no limit",
    "n_jobs": "every CPU is used that the process may run on, which `taskset` limits",
    "normalize": "no solver needs it; for a penalty, put a StandardScaler before the model",
    "positive": "take scipy.optimize.nnls, or scikit-learn's LinearRegression",
    "random_state": "nothing here is random",
    "store_cv_results": "scores_ always has the score of each penalty",
    "warm_start": "a solution does not depend on a start; partial_fit adds rows to those before",
}


def refusing_the_absent(
    init: Callable[Concatenate[Model, P], None],
) -> Callable[Concatenate[Model, P], None]:
    """`__init__`, of the same signature, whose TypeError for a name above says what to do."""

    @wraps(init)
    def checked(self: Model, /, *arguments: P.args, **options: P.kwargs) -> None:
        try:
            init(self, *arguments, **options)
        except TypeError:
            absent = [f"no {name}: {INSTEAD[name]}" for name in options if name in INSTEAD]
            if not absent:
                raise
            raise TypeError(f"{type(self).__name__} has {'; '.join(absent)}") from None

    return checked
