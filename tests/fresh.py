"""Programs in processes of their own: bounded in time, and silent about warnings or failed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from silence import assert_no_warning


def environment(**changes: str) -> dict[str, str]:
    """The test's environment with C++ warnings visible, and no GPU to talk about."""
    kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "1", "CUDA_VISIBLE_DEVICES": "-1", **changes}


def run(
    program: str | Path, *arguments: object, timeout: float = 120, fails: bool = False, **env: str
) -> subprocess.CompletedProcess:
    """Runs Python source, or a file, away from the repository; what it printed is returned."""
    command = [program] if isinstance(program, Path) else ["-c", textwrap.dedent(program)]
    done = subprocess.run(
        [sys.executable, *map(str, [*command, *arguments])],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd="/",
        env=environment(**env),
    )
    assert (done.returncode != 0) == fails, f"{done.stdout}\n{done.stderr}"
    assert_no_warning(done.stderr)
    return done
