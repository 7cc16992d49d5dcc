"""What a suite measured: raw medians in JSON, derived figures as methods.

A file holds one suite. Nothing derived is stored, so a file cannot disagree with itself, and every
table and plot is a function of these files alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"

# Names in `times` start with the library; ours with OURS. The yardsticks do less than the job: they
# read X, multiply and add in registers, or compute one product. All others are peers.
OURS, YARDSTICKS = "linreg_ops", ("read ", "fma ", "tf.matmul")
# An error above this is no solution: who makes it is not compared for speed.
ASKED_ERROR = 1e-6
EAGER, GRAPH, XLA, KERNELS = (f"{OURS} {how}" for how in ("eager", "tf.function", "XLA", "kernels"))


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median and quartiles of `samples` interleaved samples.

    The quartiles are None where a run from before this schema kept none.
    """

    median: float
    q1: float | None
    q3: float | None
    samples: int


@dataclass(frozen=True)
class Error:
    """Relative errors against truth, which is computed in a wider type."""

    loss: float
    grad: float


@dataclass(frozen=True)
class Row:
    """One problem, and everyone's time on the same arrays in the same interleaved rounds."""

    case: dict[str, Any]  # n, d, k, dtype and what else tells this row from the others
    bytes: int  # of X, y and the sample weights, each once: what any algorithm must read
    x_bytes: int
    read_bytes: int  # what the straight-line read reads
    flops: float  # of the residual and the gradient
    times: dict[str, Timing]
    errors: dict[str, Error] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # who could not do it, and why
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The case on one line: `n=50 d=2 k=1 float32`, and what is special about it."""
        return " ".join(_describe(key, value) for key, value in self.case.items() if value).strip()

    def time(self, name: str) -> float:
        return self.times[name].median

    def peers(self) -> list[str]:
        return [n for n in self.times if not n.startswith((OURS, *YARDSTICKS))]

    def best(self, prefix: str | tuple[str, ...] = "") -> str | None:
        """The fastest peer whose name starts with `prefix`."""
        return min((n for n in self.peers() if n.startswith(prefix)), key=self.time, default=None)

    def digits(self, name: str) -> float:
        """The worst coefficient has so many; 15 at most, which float64 holds of any number."""
        return min(15.0, -math.log10(max(self.errors[name].grad, 1e-300)))

    def right(self) -> list[str]:
        """Who solves it, peers and ours, where errors are those of coefficients."""
        return [name for name, error in self.errors.items() if error.grad <= ASKED_ERROR]

    def bandwidth(self) -> float:
        """Bytes a second of the best straight-line read of the same memory, in the same rounds."""
        return self.read_bytes / min(self.time(n) for n in self.times if n.startswith("read "))

    def peak(self) -> float:
        """Flops a second of multiply-adds in registers, same rounds; infinite if not asked."""
        rates = [1 / self.time(n) for n in self.times if n.startswith("fma ")]
        return max(rates, default=float("inf"))

    def floor(self) -> float:
        """Seconds that the machine needs at least: to read the data or to do the arithmetic."""
        return max(self.bytes / self.bandwidth(), self.flops / self.peak())

    def fraction(self, name: str) -> float:
        """The share of the machine's own limit: 1 is the roofline."""
        return self.floor() / self.time(name)

    def ratio(self, peer: str, ours: str = EAGER) -> float:
        """How many times as long the peer takes."""
        return self.time(peer) / self.time(ours)

    def gigabytes_per_second(self, name: str) -> float:
        """The bytes of X alone."""
        return self.x_bytes / self.time(name) / 1e9


@dataclass(frozen=True)
class Results:
    """One suite's rows, and where, when and with what they were measured."""

    suite: str
    mode: str  # "full", "quick"
    run: dict[str, Any]
    rows: list[Row]
    schema: int = SCHEMA

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.suite}.json"
        data = dataclasses.asdict(self)
        lines = ",\n".join(json.dumps(row, default=_plain) for row in data.pop("rows"))
        head = json.dumps(data, indent=1, default=_plain).removesuffix("\n}")
        path.write_text(f'{head},\n "rows": [\n{lines}\n]}}\n')  # a row a line
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """Strict: a missing or an unknown key is an error."""
        data = json.loads(path.read_text())
        if data.get("schema") != SCHEMA:
            raise ValueError(f"{path} has schema {data.get('schema')}, this reads {SCHEMA}")
        data["rows"] = [_row(row) for row in data["rows"]]
        return cls(**data)


def load_all(folder: Path = RESULTS) -> dict[str, Results]:
    """Every suite in `folder`, by name."""
    return {r.suite: r for r in map(Results.load, sorted(folder.glob("*.json")))}


def _row(data: dict[str, Any]) -> Row:
    data["times"] = {name: Timing(**t) for name, t in data["times"].items()}
    data["errors"] = {name: Error(**e) for name, e in data["errors"].items()}
    return Row(**data)


def _describe(key: str, value: Any) -> str:
    if value is True:
        return key
    return str(value) if isinstance(value, str) else f"{key}={value}"


def _plain(value: Any) -> Any:
    return value.item()  # NumPy scalars
