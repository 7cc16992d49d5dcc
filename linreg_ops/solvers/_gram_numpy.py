# mypy: ignore-errors
# ruff: noqa
"""Stands in for `kernels.GramState`, in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

Array = Any


class Gram(NamedTuple):
    xx: Array
    xy: Array
    yy: Array
    x_sum: Array
    y_sum: Array
    weight: float
    rows: int


class GramState:
    BLOCK_ROWS = 1024

    def __init__(self, d, k=0, *, folds=1, x_shift=None, y_shift=None):
        self.d, self.k, self.folds = d, k, folds
        self.x_shift = np.zeros(d) if x_shift is None else x_shift
        self.y_shift = np.zeros(k) if y_shift is None else y_shift
        zero = Gram(*map(np.zeros, ((d, d), (d, k), k, d, k)), 0.0, 0)
        self._totals = [zero] * folds
        self._waiting = [np.zeros((0, d + k + 1)) for _ in range(folds)]

    @property
    def rows(self):
        return sum(t.rows + len(w) for t, w in zip(self._totals, self._waiting))

    def update(self, x, y=None, *, sample_weight=None, fold=None):
        s = np.ones(len(x)) if sample_weight is None else sample_weight
        rows = np.column_stack(
            [x.astype(np.float64) - self.x_shift, y.astype(np.float64) - self.y_shift, s]
        )
        for f in range(self.folds):
            own = rows if fold is None else rows[fold == f]
            own = np.concatenate([self._waiting[f], own])
            while len(own) >= self.BLOCK_ROWS:
                block, own = own[: self.BLOCK_ROWS], own[self.BLOCK_ROWS :]
                self._totals[f] = self._add(self._totals[f], self._of(block))
            self._waiting[f] = own
        return self

    def _of(self, rows):
        a, b, s = rows[:, : self.d].copy(), rows[:, self.d : -1].copy(), rows[:, -1].copy()
        with threadpool_limits(1, user_api="blas"):
            sa, sb = s[:, None] * a, s[:, None] * b
            xx = sa.T @ a
            return Gram(
                (xx + xx.T) / 2,
                sa.T @ b,
                (sb * b).sum(0),
                sa.sum(0),
                sb.sum(0),
                float(s.sum()),
                len(s),
            )

    def _add(self, a, b):
        return Gram(*(u + v for u, v in zip(a, b)))

    def result(self, folds=None):
        chosen = range(self.folds) if folds is None else np.atleast_1d(folds)
        total = Gram(
            *map(np.zeros, ((self.d, self.d), (self.d, self.k), self.k, self.d, self.k)), 0.0, 0
        )
        for f in chosen:
            total = self._add(self._add(total, self._totals[f]), self._of(self._waiting[f]))
        return total

    def to_arrays(self):
        out = {
            "shape": np.array([self.d, self.k, self.folds]),
            "x_shift": self.x_shift,
            "y_shift": self.y_shift,
        }
        for f in range(self.folds):
            out[f"waiting{f}"] = self._waiting[f]
            out |= {f"total{f}_{n}": np.asarray(v) for n, v in self._totals[f]._asdict().items()}
        return out

    @classmethod
    def from_arrays(cls, arrays):
        d, k, folds = map(int, arrays["shape"])
        self = cls(d, k, folds=folds, x_shift=arrays["x_shift"], y_shift=arrays["y_shift"])
        for f in range(folds):
            self._waiting[f] = arrays[f"waiting{f}"]
            t = Gram(*(arrays[f"total{f}_{n}"] for n in Gram._fields))
            self._totals[f] = t._replace(weight=float(t.weight), rows=int(t.rows))
        return self
