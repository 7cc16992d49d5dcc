"""Prints TensorFlow's folder, distribution name and version as a CMake list.

TensorFlow is found, not imported: an import takes seconds.
"""

import importlib.util
import sys
from importlib import metadata

DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")


def find() -> tuple[str, str, str]:
    """TensorFlow's folder, distribution name and version; LookupError says what is missing."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(
            f"TensorFlow is not installed for {sys.executable}. Build with its headers beside: "
            "pip install 'tensorflow==2.21.*' (or drop --no-build-isolation)."
        )
    for name in DISTRIBUTIONS:
        try:
            return spec.submodule_search_locations[0], name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise LookupError(
        f"{spec.submodule_search_locations[0]} belongs to no known package: "
        f"expected one of {', '.join(DISTRIBUTIONS)}."
    )


if __name__ == "__main__":
    try:
        print(";".join(find()))
    except LookupError as error:
        sys.exit(str(error))
