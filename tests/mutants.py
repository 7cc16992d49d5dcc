"""Breaks the code in small ways and asks whether a test notices: `python tests/mutants.py`.

A mutant is a row of `mutants_python.PYTHON` or `mutants_native.NATIVE`: a line of the code, what to
put in its place, and the tests that are to fail then. Each is put into a copy of the package, never
into the checkout. What no test notices is a gap, unless the row says why nothing can tell the two
apart.

    python tests/mutants.py                     all; an hour, as the C++ of each is compiled
    python tests/mutants.py --only python       without a compiler, minutes
    python tests/mutants.py --only native --scalar      without the vector units: minutes too
    python tests/mutants.py --match stock       those whose name has the word

Exit code 1 if a mutant survives that no reason is given for, or if one cannot be tested: its line
is gone, it does not compile, or the tests fail without it too.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 900  # seconds: a mutant may never end, and that is noticed too
TOOLS = {"check_kernels", "check_gram"}


class Mutant(NamedTuple):
    name: str
    file: str  # from the root of the repository
    old: str  # once in the file
    new: str
    tests: str  # commands joined by ";": pytest's arguments, or a program of tests/cpp and its own
    why_it_lives: str = ""  # for one that no test can notice


class Copy:
    """A copy of the package, and of its C++ sources where these are to be compiled."""

    def __init__(self, scratch: Path, native: bool, scalar: bool = False) -> None:
        self.site, self.source, self.build = (scratch / n for n in ("site", "source", "build"))
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "linreg_ops", self.site / "linreg_ops", ignore=ignored)
        self.native = native
        self.passed: set[str] = set()
        if not native:
            return
        for folder in ("csrc", "cmake", "tests/cpp"):
            shutil.copytree(ROOT / folder, self.source / folder)
        shutil.copy(ROOT / "CMakeLists.txt", self.source)
        # To compile is what takes the time here, not to run: in haste, and one vector unit of two.
        self.edit("CMakeLists.txt", "set(vector_options -O3)", "set(vector_options -O1)")
        self.edit("CMakeLists.txt", "host pybind11::lto)", "host)")
        import pybind11

        self.checked(
            "cmake", "-GNinja", f"-S{self.source}", f"-B{self.build}",
            f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            "-DLINREG_OPS_CUDA=off", "-DLINREG_OPS_BUILD_TESTS=ON",
            f"-DLINREG_OPS_WITHOUT={'avx512;avx2' if scalar else 'avx512'}",
            f"-DLINREG_OPS_PYTHON={'off' if scalar else 'on'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={self.site / 'linreg_ops'}",
        )  # fmt: skip

    @staticmethod
    def checked(*command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def path(self, file: str) -> Path:
        return (self.site if file.startswith("linreg_ops/") else self.source) / file

    def edit(self, file: str, old: str, new: str) -> str:
        """Puts `new` in the place of `old`, and returns the file as it was."""
        path = self.path(file)
        text = path.read_text()
        if text.count(old) != 1:
            raise LookupError(f"{text.count(old)} times in {file}: {old!r}")
        path.write_text(text.replace(old, new))
        return text

    def compile(self, tests: str) -> bool:
        """What the tests need of C++: all of it, the ops too, where they say --ops.

        Other tests import the ops, but need not have them compiled again.
        """
        if not self.native:
            return True
        targets = [tool for tool in TOOLS if tool in tests]
        if "pytest" in tests:
            whole = "--ops" in tests or not list(self.site.glob("linreg_ops/_ops_tf*.so"))
            targets.append("all" if whole else "_kernels")
        command = ["cmake", "--build", str(self.build), "--target", *targets]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout[-2000:])
        return done.returncode == 0

    def notices(self, tests: str) -> str:
        """What fails of the tests, or nothing."""
        for command in tests.split(";"):
            words = [word for word in shlex.split(command) if word != "--ops"]
            if words[0] in TOOLS:
                words[0] = str(self.build / words[0])
            else:
                options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
                words = [
                    sys.executable,
                    "-P",
                    "-m",
                    *words,
                    *options,
                    "-c",
                    f"{ROOT}/pyproject.toml",
                ]
            env = os.environ | {
                "PYTHONPATH": str(self.site),
                "LD_LIBRARY_PATH": str(self.site / "linreg_ops"),
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            try:
                done = subprocess.run(
                    words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE
                )
            except subprocess.TimeoutExpired:
                return f"no end of {command}"
            if done.returncode:
                lines = (done.stdout + done.stderr).strip().splitlines()
                shown = [line for line in lines if line.startswith(("FAILED", "ERROR", "FAIL "))]
                return (shown or lines or [f"died of {done.returncode}"])[0][:150]
        return ""

    def verdict(self, mutant: Mutant) -> tuple[str, str]:
        if mutant.tests not in self.passed:
            if not self.compile(mutant.tests):
                return "cannot be tested", "the code does not compile without it"
            if fails := self.notices(mutant.tests):
                return "cannot be tested", f"fails without it too: {fails}"
            self.passed.add(mutant.tests)
        try:
            before = self.edit(mutant.file, mutant.old, mutant.new)
        except LookupError as error:
            return "cannot be tested", str(error)
        try:
            if not self.compile(mutant.tests):
                return "cannot be tested", "it does not compile"
            seen = self.notices(mutant.tests)
        finally:
            self.path(mutant.file).write_text(before)
        if seen:
            return ("killed", seen) if not mutant.why_it_lives else ("killed after all", seen)
        return ("explained", mutant.why_it_lives) if mutant.why_it_lives else ("SURVIVED", "")


def main() -> None:
    from mutants_native import NATIVE
    from mutants_python import PYTHON

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["python", "native"])
    parser.add_argument("--match", default="", help="part of the mutants' names")
    parser.add_argument(
        "--scalar", action="store_true", help="those that programs of scalar kernels can notice"
    )
    arguments = parser.parse_args()
    seen: Counter[str] = Counter()
    for kind, table in (("python", PYTHON), ("native", NATIVE)):
        chosen = [Mutant(*row) for row in table if arguments.match in row[0]]
        if arguments.scalar:
            vector = ("-inl.h", "plan.cc")  # whose plans are those of the vector routes
            chosen = [m for m in chosen if "pytest" not in m.tests and not m.file.endswith(vector)]
        if arguments.only not in (None, kind) or not chosen:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            copy = Copy(Path(scratch), kind == "native", arguments.scalar)
            for mutant in chosen:
                start = time.monotonic()
                verdict, why = copy.verdict(mutant)
                seen[verdict] += 1
                seconds = time.monotonic() - start
                print(f"{verdict:16} {seconds:4.0f} s  {mutant.name}: {why}", flush=True)
    for verdict, count in seen.most_common():
        print(f"{count:4}  {verdict}")
    raise SystemExit(any(seen[v] for v in ("SURVIVED", "cannot be tested")))


if __name__ == "__main__":
    main()
