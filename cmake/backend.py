"""The build backend of pyproject.toml: setuptools', which first looks at what it would need.

pip installs a build's requirements before it runs any of the build. What is certain to fail is said
before that, in a second, and what is installed already is not downloaded: TensorFlow, for its
headers, is half a gigabyte.
"""

import os
import platform
import re
import shutil
import subprocess
import sys

import find_tensorflow
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  the hooks that need nothing of ours

TOOLS = ["cmake>=3.24", "ninja", "pybind11>=2.13"]
OLDEST_GCC = 11


def check_machine() -> None:
    """Exits with one line where no build can succeed."""
    if platform.system() != "Linux":
        sys.exit("error: linreg_ops supports Linux only (TensorFlow ships its op headers there)")
    named = os.environ.get("CXX", "").split()
    candidates = named[:1] or ["c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, candidates)), None)
    if compiler is None:
        because = f" CXX names {named[0]!r}, which is not there." if named else ""
        sys.exit(
            f"error: linreg_ops needs a C++ compiler: g++ {OLDEST_GCC} or newer "
            f"(apt install g++).{because}"
        )
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    gcc = re.search(r"\(.*\) (\d+)\.\d+", version.partition("\n")[0])
    if gcc and "clang" not in version and int(gcc[1]) < OLDEST_GCC:
        sys.exit(
            f"error: linreg_ops needs g++ {OLDEST_GCC} or newer, got {gcc[0]} ({compiler}). "
            "Name another with the environment variable CXX."
        )


def requirements(given: list[str]) -> list[str]:
    """`given`, and what this machine lacks for a build."""
    check_machine()
    if os.environ.get("LINREG_OPS_TENSORFLOWS"):
        return [*given, *TOOLS]
    try:
        around = find_tensorflow.look_in(find_tensorflow.installed_around())
    except LookupError:
        around = None
    if around and find_tensorflow.OLDEST <= around.minor < find_tensorflow.TOO_NEW:
        print(f"Building against TensorFlow {around.version} in {around.folder}")
        return [*given, *TOOLS]
    return [*given, *TOOLS, find_tensorflow.SUPPORTED]


def get_requires_for_build_wheel(config_settings=None):
    """What `pip install .` installs before it builds."""
    return requirements(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    """What `pip install -e .` installs before it builds."""
    return requirements(build_meta.get_requires_for_build_editable(config_settings))
