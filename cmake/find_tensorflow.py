"""Prints the TensorFlows to build op libraries for: folder, distribution, version; one a line.

TensorFlow is found, not imported: an import takes seconds.

It is the one that this Python imports. A build that pip isolates does not see what is installed
around it, so the environment's own folders are looked through as well: what is there need not be
downloaded again to be built against. The environment variable LINREG_OPS_TENSORFLOWS names the
folders to look in instead, separated by colons, or by a pattern; what is relative starts at this
project. A library is built for each, as for a wheel that holds several.
"""

import glob
import os
import sys
import sysconfig
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")
OLDEST, TOO_NEW = (2, 19), (2, 22)
SUPPORTED = "tensorflow>={}.{},<{}.{}".format(*OLDEST, *TOO_NEW)


class TensorFlow(NamedTuple):
    """An installed TensorFlow."""

    folder: str
    distribution: str
    version: str

    @property
    def minor(self) -> tuple[int, int]:
        """(X, Y) of version X.Y.Z."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


def installed_around() -> list[str]:
    """The folders of packages of this interpreter, which an isolated build hides."""
    return [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]


def look_in(folders: list[str]) -> TensorFlow | None:
    """The first TensorFlow in the folders; LookupError if no known package brought it."""
    spec = PathFinder.find_spec("tensorflow", folders)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = next(iter(spec.submodule_search_locations))
    for name in DISTRIBUTIONS:
        for found in metadata.distributions(name=name, path=folders):
            return TensorFlow(folder, name, found.version)
    raise LookupError(
        f"{folder} belongs to no known package: expected one of {', '.join(DISTRIBUTIONS)}."
    )


def find() -> TensorFlow:
    """The TensorFlow that this Python would run with; LookupError says what is missing."""
    found = look_in(sys.path) or look_in(installed_around())
    if found is None:
        raise LookupError(
            f"TensorFlow is not installed for {sys.executable}. Build with its headers beside: "
            f"pip install '{SUPPORTED}' (or drop --no-build-isolation)."
        )
    return found


def find_all() -> list[TensorFlow]:
    """Every TensorFlow to build for, oldest first; LookupError says what is missing."""
    named = os.environ.get("LINREG_OPS_TENSORFLOWS")
    if not named:
        return [find()]
    result = []
    for pattern in named.split(os.pathsep):
        for folder in sorted(glob.glob(str(ROOT / pattern))) or [pattern]:
            found = look_in([folder])
            if found is None:
                raise LookupError(f"LINREG_OPS_TENSORFLOWS: there is no TensorFlow in {folder}.")
            result.append(found)
    result.sort(key=lambda found: found.minor)
    minors = [found.minor for found in result]
    if len(set(minors)) < len(minors):
        versions = ", ".join(found.version for found in result)
        raise LookupError(f"LINREG_OPS_TENSORFLOWS: one of each minor version, got {versions}.")
    return result


def requirement(found: list[TensorFlow]) -> str:
    """What a package with these op libraries needs installed."""
    if len(found) == 1:
        return f"{found[0].distribution}=={'.'.join(map(str, found[0].minor))}.*"
    (major, last) = found[-1].minor
    return f"tensorflow>={'.'.join(map(str, found[0].minor))},<{major}.{last + 1}"


if __name__ == "__main__":
    try:
        for tensorflow in find_all():
            if not Path(
                tensorflow.folder, "include/tensorflow/core/framework/op_kernel.h"
            ).exists():
                sys.exit(
                    f"TensorFlow {tensorflow.version} in {tensorflow.folder} comes without its C++ "
                    "headers. Reinstall it: pip install --force-reinstall "
                    f"{tensorflow.distribution}=={tensorflow.version}"
                )
            print(*tensorflow, sep=";")
    except LookupError as error:
        sys.exit(str(error))
