"""Every example in the README and in a docstring runs."""

import doctest
import importlib
import re
import types

import pytest

import linreg_ops

MODULES = [
    "linreg_ops",
    "linreg_ops._library",
    "linreg_ops._patch",
    "linreg_ops.cli.terminal",
    "linreg_ops.demo",
    "linreg_ops.estimator",
    "linreg_ops.keras",
    "linreg_ops.kernels",
    "linreg_ops.ops",
    "linreg_ops.plotting",
    "linreg_ops.reference",
    "linreg_ops.stock",
    "linreg_ops.training",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


@pytest.mark.parametrize(
    "name", [n for n in linreg_ops.__all__ if callable(getattr(linreg_ops, n))]
)
def test_public_names_are_documented(name):
    assert len(getattr(linreg_ops, name).__doc__.split()) > 5


def test_readme(repository):
    text = (repository / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_import_of_everything_rebinds_no_module():
    names = {}
    exec("from linreg_ops import *", names)
    brought = {name: value for name, value in names.items() if not name.startswith("__")}
    assert set(brought) == set(linreg_ops.__all__)
    assert not [name for name, value in brought.items() if isinstance(value, types.ModuleType)]


def test_everything_public_is_listed():
    """What the modules show to users without an underscore, as far as users are told of it."""
    for name in dir(linreg_ops):
        assert getattr(linreg_ops, name) is not None
    assert {*linreg_ops.__all__, "keras", "kernels", "plotting", "reference", "training"} <= {
        *dir(linreg_ops)
    }
