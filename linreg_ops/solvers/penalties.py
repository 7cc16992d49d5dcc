"""Which ridge penalty predicts best: squared errors of any number of penalties, from sums of rows.

By folds, out of each fold's own sums and those of the rest, and by generalised cross-validation:
no read of X beside the one for the sums. Leave-one-out takes one more.

Sources: Golub, Heath and Wahba, "Generalized cross-validation as a method for choosing a good ridge
parameter", 1979; Allen, "The relationship between variable selection and data augmentation and a
method for prediction", 1974 (leave-one-out by leverages).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .factor import Factor
from .problem import EPS, Array
from .state import GramState
from .sums import Centred


class Errors(NamedTuple):
    """Mean squared errors of predictions [folds, penalties, k], and the targets' variances there.

    On rows that the coefficients were not fitted to; by generalised cross-validation, as if.
    """

    squared: Array
    variance: Array  # [folds, k], about their own mean


class Path:
    """Coefficients of centred sums at any penalty ½ alpha Σ p w², from one eigendecomposition.

    Columns of p = 0 are eliminated, which leaves of the others' Gram matrix what those do not
    explain (a Schur complement); divided by √p, it is decomposed. In the basis that both make, the
    sums' Gram matrix is diagonal, and the penalty 0 for the former directions, alpha for the rest.

    The decomposition rounds by ε of the largest eigenvalue. Penalties that are near to that are
    left to a factorisation of their own, of columns scaled to unit length.
    """

    def __init__(self, sums: Centred, column_penalty: Array) -> None:
        """`column_penalty` is p [d], not negative."""
        self._sums, self._penalty = sums, column_penalty
        free, held = np.flatnonzero(column_penalty == 0), np.flatnonzero(column_penalty)
        scale = 1.0 / np.sqrt(column_penalty[held])
        with np.errstate(over="ignore", invalid="ignore"):
            gram = sums.gram[np.ix_(held, held)] * scale * scale[:, None]
            beside = sums.gram[np.ix_(free, held)] * scale
        self._least = np.inf
        if not (np.all(np.isfinite(gram)) and np.all(np.isfinite(beside))):
            return
        largest = np.diag(gram).max(initial=0.0)
        without = Factor.from_gram(None, np.zeros(len(free)), sums.gram[np.ix_(free, free)])
        across = without.half(beside)
        gram -= across.T @ across
        # "evd" is the faster of LAPACK's by a third at d = 768.
        values, vectors = scipy.linalg.eigh(gram, driver="evd", check_finite=False)
        ones = np.ones(without.rank)
        self._shrunk = np.concatenate([0.0 * ones, np.ones(len(held))])
        self._values = np.concatenate([ones, np.maximum(values, 0.0)])
        self._basis = np.zeros((len(sums.gram), len(self._values)))
        self._basis[free, : len(ones)] = without.root()
        self._basis[free, len(ones) :] = -without.back(across @ vectors)
        self._basis[held, len(ones) :] = scale[:, None] * vectors
        self._cross = self._basis.T @ sums.cross
        self._least = 1e6 * EPS * len(sums.gram) * max(values.max(initial=0.0), largest)

    def groups(self, alphas: Array) -> Iterator[tuple[Array | None, Array]]:
        """(basis [d, d], which alphas): what `coef` is in. None is the columns themselves."""
        direct = alphas <= self._least
        if not np.all(direct):
            yield self._basis, np.flatnonzero(~direct)
        if np.any(direct):
            yield None, np.flatnonzero(direct)

    def coef(self, alpha: float) -> tuple[Array, float]:
        """Coefficients [d, k] in their group's basis, and how many they count as: tr H."""
        if alpha > self._least:
            own = 1.0 / (self._values + alpha * self._shrunk)
            return self._cross * own[:, None], float(self._values @ own)
        factor = self._factor(alpha)
        coef = factor.back(factor.half(self._sums.cross))
        squares = np.sum(np.square(factor.root()), axis=1)
        return coef, factor.rank - alpha * float(self._penalty @ squares)

    def leverage(self, alpha: float, rows: Array) -> Array:
        """xᵀ (AᵀSA + alpha)⁻¹ x of rows [m, d] in the group's basis."""
        if alpha > self._least:
            return np.asarray(np.square(rows) @ (1.0 / (self._values + alpha * self._shrunk)))
        return np.asarray(np.sum(np.square(self._factor(alpha).half(rows.T)), axis=0))

    def _factor(self, alpha: float) -> Factor:
        gram = self._sums.gram + np.diag(alpha * self._penalty)
        return Factor.from_gram(None, np.zeros(len(gram)), gram)


def held_out(state: GramState, alphas: Array, intercept: bool, column_penalty: Array) -> Errors:
    """Each fold's errors, of coefficients fitted to all the others."""
    k = state.n_targets or 0
    errors = Errors(np.empty((state.folds, len(alphas), k)), np.empty((state.folds, k)))
    for fold in range(state.folds):
        rest = state.centred(without=fold, intercept=intercept)
        own = state.about(rest.x_mean, rest.y_mean, fold)
        if not own.weight > 0:
            raise ValueError(f"fold {fold} has no rows of positive weight: take fewer folds")
        path = Path(rest, column_penalty)
        for basis, which in path.groups(alphas):
            xx, xy = own.xx, own.xy
            if basis is not None:
                xx, xy = basis.T @ xx @ basis, basis.T @ xy
            for i in which:
                w = path.coef(alphas[i])[0]
                left = own.yy - np.sum(w * (2 * xy - xx @ w), axis=0)
                errors.squared[fold, i] = np.maximum(left, 0.0) / own.weight
        about_mean = own.yy - np.square(own.y) / own.weight
        errors.variance[fold] = np.maximum(about_mean, 0.0) / own.weight
    return errors


def generalised(sums: Centred, alphas: Array, intercept: bool, column_penalty: Array) -> Errors:
    """Errors as leave-one-out has them in the mean: all leverages taken as their average."""
    path = Path(sums, column_penalty)
    squared = np.empty((1, len(alphas), len(sums.squares)))
    for basis, which in path.groups(alphas):
        gram, cross = sums.gram, sums.cross
        if basis is not None:
            gram, cross = basis.T @ gram @ basis, basis.T @ cross
        for i in which:
            w, count = path.coef(alphas[i])
            left = np.maximum(sums.squares - np.sum(w * (2 * cross - gram @ w), axis=0), 0.0)
            free = 1.0 - (count + int(intercept)) / sums.rows
            # Nothing is left to predict where there are as many coefficients as rows.
            squared[0, i] = left / sums.weight / free**2 if free > 1e-9 else np.inf
    return Errors(squared, sums.squares[None] / sums.weight)


def leave_one_out(
    sums: Centred,
    blocks: Iterable[tuple[Array, Array, Array | None]],
    alphas: Array,
    intercept: bool,
    column_penalty: Array,
) -> Errors:
    """Each row's error of coefficients fitted to all the others, in one more read of X.

    Weights s are part of the fit without a row as of that with it.
    """
    path = Path(sums, column_penalty)
    total = np.zeros((1, len(alphas), len(sums.squares)))
    constant = 1.0 / sums.weight if intercept else 0.0
    groups = [
        (basis, [(i, path.coef(alphas[i])[0]) for i in which])
        for basis, which in path.groups(alphas)
    ]
    for x, y, s in blocks:
        a, b = x - sums.x_mean, y - sums.y_mean
        ones = np.ones(len(a)) if s is None else s
        for basis, coefs in groups:
            rows = a if basis is None else a @ basis
            for i, w in coefs:
                free = 1.0 - ones * (path.leverage(alphas[i], rows) + constant)
                with np.errstate(divide="ignore", invalid="ignore"):
                    r = (rows @ w - b) / np.where(free > 1e-9, free, np.nan)[:, None]
                total[0, i] += ones @ np.square(r)
    total = np.where(np.isnan(total), np.inf, total)
    return Errors(total / sums.weight, sums.squares[None] / sums.weight)
