"""Measure the op beside its peers, and write the README's figures: `python -m benchmarks`."""

import os

# Before NumPy is imported: a container may name an older CPU to OpenBLAS than it runs on.
os.environ.pop("OPENBLAS_CORETYPE", None)
