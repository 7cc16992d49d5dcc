"""A linear model fitted from sums over rows: of batches, of files, of several machines."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from . import inference, sources
from ._linear_model import LinearModel
from ._sklearn import available_if, check_is_fitted
from .solvers import gram
from .solvers.factor import AnyFactor
from .solvers.problem import EPS
from .solvers.state import GramState
from .solvers.sums import Centred

if TYPE_CHECKING:
    from typing_extensions import Self


def _sums_suffice(model: SumsModel) -> bool:
    """Whether the solver asked for needs no X beside sums over its rows; raises otherwise."""
    why_not = model._needs_x()
    if why_not:
        raise ValueError(why_not)
    return True


class SumsModel(LinearModel):
    """A linear model whose coefficients follow from a `GramState`, without X."""

    state_: GramState
    n_reads_: int

    def _check_parameters(self) -> None:
        """Raises ValueError for a parameter out of range."""
        raise NotImplementedError

    @available_if(_sums_suffice)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> Self:
        """Fits to these rows and those of every `partial_fit` before, which need not be there.

        What is kept of them is `state_`, a `GramState`: any cut into batches gives the same bits,
        and the solution is that of all rows at once, but for digits that XᵀX alone cannot hold (a
        warning says so). X may be a SciPy sparse matrix.

        Each call solves for the coefficients anew, d³/3 operations: for many small batches, update
        a `GramState` and call `fit_state` at the end. Solvers other than "auto" and "gram" need all
        of X at once, and have no `partial_fit`.

        Warns:
            UserWarning: The model was made by `fit`, whose rows are not kept: it begins anew.

        Raises:
            ValueError: As of `fit`.
        """
        self._check_parameters()
        first = not hasattr(self, "state_")
        if first and hasattr(self, "coef_"):
            warnings.warn(
                "fit keeps no sums to add to: partial_fit begins anew, with these rows alone",
                UserWarning,
                stacklevel=2,
            )
        x, targets, s = self._check_data(X, y, sample_weight, reset=first)
        state = self._new_state() if first else self.state_
        return self._fit_sums(state.update(x, targets, s))

    def fit_state(self, state: GramState) -> Self:
        """Fits to the rows that a `GramState` has seen: no read of X, d³/3 operations.

        The state is kept as `state_`, and not copied: a later `partial_fit` goes on with it.

        Raises:
            ValueError: A state of no rows; solver="exact", "cg" or "gd", which need X.
        """
        self._check_parameters()
        _sums_suffice(self)
        self._forget()
        self.__dict__.pop("feature_names_in_", None)
        return self._fit_sums(state)

    def fit_dataset(
        self,
        source: Any,
        y: Any = None,
        *,
        weight: Any = None,
        target: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        progress: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> Self:
        """Fits to a source of rows that need not be in memory, read once, as `fit_state` does.

        Arguments and errors are those of `GramState.from_dataset`: arrays, memmaps, .npy files, a
        `tf.data.Dataset`, Parquet, or an iterable of (x, y).

        >>> import linreg_ops as lo
        >>> batches = [([[0.0], [1.0]], [1.0, 3.0]), ([[2.0]], [5.0])]
        >>> lo.LinearRegression().fit_dataset(batches).coef_
        array([2.])
        """
        self._check_parameters()
        _sums_suffice(self)
        opened = sources.open_source(source, y, weight=weight, target=target, columns=columns)
        state = sources.read(
            opened, self._new_state(), progress=progress, checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
        )  # fmt: skip
        self.fit_state(state)
        if opened.names is not None:
            self.feature_names_in_ = np.array(opened.names, object)
        return self

    def merge(self, other: SumsModel) -> Self:
        """Adds the rows that another model was fitted to, both by `partial_fit` or `fit_state`.

        Raises:
            ValueError: One of them keeps no sums; they differ in columns, targets or folds.
        """
        for model in (self, other):
            check_is_fitted(model)
            if not hasattr(model, "state_"):
                raise ValueError(
                    "merge needs models of partial_fit or fit_state: fit keeps no sums"
                )
        return self._fit_sums(self.state_.merge(other.state_))

    def _new_state(self) -> GramState:
        return GramState()

    def _forget(self) -> None:
        self.__dict__.pop("state_", None)

    def _needs_x(self) -> str:
        """Why sums do not suffice for the parameters, if so."""
        return ""

    def _fit_sums(self, state: GramState) -> Self:
        sums = state.centred(intercept=self.fit_intercept)
        if not np.all(np.isfinite(sums.gram)) or not np.all(np.isfinite(sums.squares)):
            raise ValueError("X or y holds values whose squares have no place in float64: scale it")
        self.state_, self._one_target = state, state.one_target
        self.n_features_in_ = len(sums.gram)
        alpha, column = self._alpha_of(len(sums.squares)), self._column_penalty(len(sums.gram))
        factor, coef = gram.from_sums(sums, alpha, column)
        self.learning_rate_ = None
        self.solver_, self.solver_reason_ = "gram", f"from sums of {state.n_rows} rows"
        self.rank_: int | None = factor.rank
        self.condition_ = factor.condition
        zero = state.centred(intercept=False).squares.sum()
        self.loss_curve_ = 0.5 * np.array([zero, sums.residual_squares(coef).sum()])
        self.loss_, self.n_iter_, self.n_reads_ = float(self.loss_curve_[-1]), 1, 1
        self._set_coefficients(sums.y_mean - sums.x_mean @ coef, coef)
        self._basis = None
        if not (np.any(alpha) and np.any(column)):
            with_intercept = self.fit_intercept
            self._basis = inference.of_sums(sums, state.log_weight, factor, coef, with_intercept)
        self._warn_of_sums(sums, factor)
        return self

    def _warn_of_sums(self, sums: Centred, factor: AnyFactor) -> None:
        self._error_of_sums = error = EPS * (factor.condition**2 + sums.lost)
        possible = min(int(np.sum(np.diag(sums.gram) > 0)), sums.rows - int(self.fit_intercept))
        if factor.rank < possible:
            self._error_of_sums = 1.0
            what = "columns depend on others, or so nearly that XᵀX cannot tell"
        elif error > 1e-6:
            what = f"coefficients are right to about {error:.0e} of their size only"
        else:
            return
        warnings.warn(
            f"From sums alone, {what}: fit(X, y) can, and Ridge need not",
            scipy.linalg.LinAlgWarning,
            stacklevel=4,
        )
