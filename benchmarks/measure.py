"""Interleaved timing: every contender in every round, so that a slow moment hits them all."""

from __future__ import annotations

import gc
import os
import random
import shlex
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from .results import Timing

Call = Callable[[], Any]

# A sample lasts at least this long: shorter calls are repeated within it. As many calls before it
# are not timed. After a pause they find code out of the caches and processors that were halted: an
# eager call of 40 us takes 400. Of a call longer than COLD that would be less than 2%.
SAMPLE = 1e-3
COLD = 20e-3
DISTURBED = 0.05
# Samples of a quick call in each round, at most. Here the memory's speed flips between 50 and
# 80 GB/s within a round: with one sample each, a call and the read beside it fell on either side.
TURNS = 4


def interleave(
    calls: Mapping[str, Call],
    clocks: Mapping[str, Callable[[], float]] | None = None,
    *,
    seconds: float,
    rounds: int,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time every call, at least `rounds` times, and for about `seconds` altogether.

    `clocks` time themselves and return seconds. The order within a round is shuffled: nobody always
    follows the same neighbour. If other processes took more than DISTURBED of the processors
    meanwhile, it is done again, up to three times, and the quietest is what counts: OpenMP's
    barriers wait for a whole time slice when one thread is late, so that some libraries would
    seem a thousand times slower than they are. Without `seconds`, where nobody looks at the times,
    it is not.
    """
    quietest, least = {}, float("inf")
    for _ in range(3 if seconds else 1):
        before, start = _others(), time.perf_counter()
        times = _interleave(calls, clocks or {}, seconds, rounds, seed)
        share = (_others() - before) / (time.perf_counter() - start) / (os.cpu_count() or 1)
        if share < least:
            quietest, least = times, share
        if share < DISTURBED:
            break
    return quietest


def _others() -> float:
    """Seconds of processor time that was not this process's, since some fixed moment."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return busy - own.user - own.system


def _interleave(
    calls: Mapping[str, Call],
    clocks: Mapping[str, Callable[[], float]],
    seconds: float,
    rounds: int,
    seed: int,
) -> dict[str, Timing]:
    once = {name: _once(call) for name, call in calls.items()}
    inner = {name: max(1, min(1000, round(SAMPLE / once[name]))) for name in calls}
    once |= {name: clock() for name, clock in clocks.items()}
    order = [name for name in once for _ in range(_turns(once[name], max(once.values())))]
    samples: dict[str, list[float]] = {name: [] for name in once}
    shuffle = random.Random(seed).shuffle
    end = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        done = 0
        while done < rounds or (time.perf_counter() < end and done < 1000):
            shuffle(order)
            for name in order:
                settle()
                if name in calls:
                    samples[name].append(_sample(calls[name], inner[name]))
                else:
                    samples[name].append(clocks[name]())
            done += 1
    finally:
        gc.enable()
    return {name: timing(samples[name]) for name in samples}


def timing(samples: list[float]) -> Timing:
    """Four digits: more would be noise."""
    if len(samples) == 1:  # of what takes minutes
        samples = 2 * samples
        return replace(timing(samples), samples=1)
    q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
    median, q1, q3 = (float(f"{value:.4g}") for value in (median, q1, q3))
    return Timing(median, q1, q3, len(samples))


def settle(limit: float = 0.1) -> None:
    """Wait until this process's other threads sleep.

    Workers of OpenBLAS and OpenMP spin for up to 25 ms after a call, and would steal a core from
    the next one timed. The time they have used would not tell: it is booked once a tick, of 4 ms.
    """
    end = time.perf_counter() + limit
    while _others_run() and time.perf_counter() < end:
        time.sleep(1e-3)


def _others_run() -> bool:
    """Whether another thread of this process runs, or would."""
    own = str(threading.get_native_id())
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
            if state == "R" and thread.name != own:
                return True
    return False


def _once(call: Call) -> float:
    """About how long a call takes; it is warmed up on the way."""
    call()
    once = min(_elapsed(call, 1) for _ in range(2))
    return once if once > SAMPLE else min(_elapsed(call, 5) for _ in range(3))


def _turns(own: float, slowest: float) -> int:
    """Samples in a round: the quick get more than the slowest, for about the same time."""
    return max(1, min(TURNS, int(slowest / max(own, SAMPLE))))


def _sample(call: Call, inner: int) -> float:
    first = _elapsed(call, inner)
    return first if first > COLD else _elapsed(call, inner)


def _elapsed(call: Call, times: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in repeat(None, times):
        call()
    return (time.perf_counter() - start) / times


class Turn:
    """Shares a machine: takes turns with builds and tests, for up to a minute's worth of cases.

    `command` runs another command alone on this machine, as `flock FILE` does where builds hold the
    same lock shared.
    """

    HOLD = 55.0

    def __init__(self, command: str = "") -> None:
        self._command = shlex.split(command)
        self._holder: subprocess.Popen[bytes] | None = None
        self._since = 0.0

    @contextmanager
    def case(self) -> Iterator[None]:
        if self._command and self._holder is None:
            self._holder = subprocess.Popen(
                [*self._command, "sh", "-c", "echo mine; cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self._holder.stdout
            if self._holder.stdout.readline() != b"mine\n":
                raise RuntimeError(f"{self._command} did not run its command")
            self._since = time.monotonic()
        yield
        if time.monotonic() - self._since > self.HOLD:
            self.release()

    def release(self) -> None:
        if self._holder:
            self._holder.communicate()  # the end of its input is the end of the turn
            self._holder = None
