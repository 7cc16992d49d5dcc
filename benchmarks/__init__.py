"""Measure the op beside its peers, and write the README's figures: `python -m benchmarks`."""
