"""One session: the contenders, the machine's peaks, and how a problem becomes a row."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .machine import Peaks, last_level_cache_bytes
from .measure import Call, Turn, interleave
from .peers import Peer
from .problem import Arena, Problem, error, truth
from .results import Error, Row


@dataclass(frozen=True)
class Mode:
    """How much to measure: seconds and rounds a case, and bytes of X where X is to be large."""

    name: str
    seconds: float
    rounds: int
    large: int

    @classmethod
    def full(cls) -> Mode:
        return cls("full", seconds=1.5, rounds=5, large=8 * last_level_cache_bytes())

    @classmethod
    def quick(cls) -> Mode:
        return cls("quick", seconds=0.4, rounds=3, large=4 * last_level_cache_bytes())

    @classmethod
    def smoke(cls) -> Mode:
        """For the tests: sizes that take no time."""
        return cls("smoke", seconds=0.0, rounds=2, large=1 << 16)


@dataclass
class Session:
    """What every suite works with."""

    mode: Mode
    peers: list[Peer]
    threads: int
    turn: Turn = field(default_factory=lambda: Turn())

    def __post_init__(self) -> None:
        self.arena = Arena(self.mode.large)
        self.peaks = Peaks(self.threads)
        self._readers: list[str] | None = None

    @property
    def is_full(self) -> bool:
        return self.mode.name == "full"

    def rows_for(self, d: int, k: int, itemsize: int) -> int:
        """Rows that make X and y large together: y counts for as much as X when d = 1."""
        return max(1, self.mode.large // (itemsize * (d + k)))

    def row(
        self,
        problem: Problem,
        case: Mapping[str, Any],
        *,
        costly: bool = False,
        only: Iterable[str] | None = None,
        multiply_add: bool = False,
        read: bool = True,
        seconds: float | None = None,
    ) -> Row:
        """Everyone on one problem. `costly`: with those who compile for seconds."""
        chosen = [p for p in self.peers if costly or not p.costly]
        if only is not None:
            chosen = [p for p in chosen if p.name in set(only)]
        true = truth(problem)
        calls: dict[str, Call] = {}
        errors: dict[str, Error] = {}
        failures: dict[str, str] = {}
        with self.turn.case():
            for peer in chosen:
                try:
                    call = peer.prepare(problem)
                    out = peer.fetch(call())
                except Exception as problem_with_peer:  # a table says who cannot, and why
                    failures[peer.name] = _first_line(problem_with_peer)
                    continue
                calls[peer.name] = call
                if true is not None:
                    errors[peer.name] = error(out, true)
            clocks = self.clocks(problem, read, multiply_add)
            times = interleave(
                calls,
                clocks,
                seconds=self.mode.seconds if seconds is None else seconds,
                rounds=self.mode.rounds,
            )
        full_case = {
            "n": problem.x.shape[0],
            "d": problem.x.shape[1],
            "k": problem.k,
            "dtype": problem.x.dtype.name,
            **case,
        }
        return Row(
            case=full_case,
            bytes=problem.bytes,
            x_bytes=problem.x.nbytes,
            read_bytes=problem.span.nbytes,
            flops=problem.flops,
            times=times,
            errors=errors,
            failures=failures,
        )

    def clocks(self, problem: Problem, read: bool = True, multiply_add: bool = False) -> Any:
        """The machine's own figures, to be taken in the same rounds."""
        clocks: dict[str, Any] = {}
        x = problem.span
        if read:
            if self._readers is None:
                self._readers = self.peaks.best_readers(x)
            clocks |= {f"read {n}": c for n, c in self.peaks.readers(x, only=self._readers).items()}
        if multiply_add:
            dtype = np.dtype(np.float64 if problem.x.dtype == np.float64 else np.float32)
            clocks[f"fma {dtype.name}"] = self.peaks.multiply_add(dtype)
        return clocks


def _first_line(problem: Exception) -> str:
    text = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {text[0][:160]}"


def resident_growth(call: Call) -> int:
    """Bytes by which a call makes this process grow at its highest: its extra memory."""
    call()  # its threads and libraries are there
    return observed(call)[2]


def observed(call: Call) -> tuple[Any, float, int]:
    """What a call returns, the seconds it takes, and the bytes by which the process grows.

    At its highest: its extra memory, and the pages of files that it maps.
    """
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = _status("VmRSS")
    start = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - start
    return found, seconds, max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    with open(f"/proc/{os.getpid()}/status") as status:
        line = next(line for line in status if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
