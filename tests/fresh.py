"""Programs in processes of their own: bounded in time, and silent about warnings or failed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from silence import assert_no_warning

# What Keras imports where it finds it, and the package asks for in extras only: as where nobody has
# installed it. It is a third of what `import tensorflow` takes, which is most of what such a
# program does.
NOT_INSTALLED = "import sys; sys.modules.update(dict.fromkeys(('matplotlib', 'pandas', 'sklearn')))"


def environment(**changes: str) -> dict[str, str]:
    """The test's environment with C++ warnings visible, and no GPU to talk about."""
    kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "1", "CUDA_VISIBLE_DEVICES": "-1", **changes}


def run(
    program: str | Path,
    *arguments: object,
    timeout: float = 120,
    fails: bool = False,
    extras: bool = False,
    **env: str,
) -> subprocess.CompletedProcess:
    """Runs Python source, or a file, away from the repository; what it printed is returned.

    Source finds what the package requires; with `extras`, what its extras name too.
    """
    if isinstance(program, Path):
        command = [program]
    else:
        source = textwrap.dedent(program)
        command = ["-c", source if extras else f"{NOT_INSTALLED}\n{source}"]
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
