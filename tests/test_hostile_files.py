"""Files of strangers: to load one runs none of its code. What else they may do says SECURITY.md."""

import base64
import io
import json
import marshal
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from linreg_ops import GramState, LinearRegression, cli

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RAN = "linreg_ops_test_code_of_a_file_ran"


CODE = f"import os; os.environ[{RAN!r}] = '1'"


class Bomb:
    """When it is unpickled, the environment has RAN."""

    def __reduce__(self):
        return exec, (CODE,)


@pytest.fixture(autouse=True)
def _nothing_ran():
    yield
    assert os.environ.pop(RAN, None) is None


def bombs():
    return np.array([Bomb(), 1.0], object)


def test_the_bomb_goes_off():
    """What the other tests rely on."""
    pickle.loads(pickle.dumps(Bomb()))
    assert os.environ.pop(RAN) == "1"


def npz_with(**changes):
    """A state's file, some of its arrays pickled."""
    file = io.BytesIO()
    arrays = GramState().update(np.ones((3, 2)), np.ones(3))._to_arrays()
    np.savez(file, allow_pickle=True, **{**arrays, **changes})
    return file.getvalue()


def zipped_pickle():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("format.npy", pickle.dumps(Bomb()))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        lambda: pickle.dumps(Bomb()),
        lambda: npz_with(head0_0=bombs()),
        lambda: npz_with(mark=bombs()),
        lambda: npz_with(format=bombs()),
        zipped_pickle,
    ],
)
def test_a_state_that_is_pickled_is_refused(content, tmp_path):
    path = tmp_path / "state.npz"
    path.write_bytes(content())
    with pytest.raises(ValueError, match="holds no GramState"):
        GramState.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", [2**62, 1, 1]),
        ("counts", [3, 2**40, 0, False]),
        ("counts", [-1, 1, 0, False]),
        ("folds", [2**63, 1]),
        ("head0_0", np.ones((3, 7))),
        ("head0_1", np.full((2, 1), np.nan)),
        ("log_weight", "9" * 5000),
        ("format", 2),
    ],
)
def test_a_state_whose_parts_do_not_go_together_is_refused(name, value, tmp_path):
    path = tmp_path / "state.npz"
    path.write_bytes(npz_with(**{name: value}))
    with pytest.raises(ValueError, match="holds no GramState"):
        GramState.load(path)


@pytest.mark.parametrize("pickled", ["x", "y"])
def test_pickled_arrays_of_a_source_are_refused(pickled, tmp_path):
    arrays = {"x": np.ones((2, 1)), "y": np.ones(2), pickled: bombs()}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"allow_pickle|memory-mapped|object"):
        LinearRegression().fit_dataset(tmp_path / "x.npy", tmp_path / "y.npy")


@pytest.mark.parametrize("name", ["model.json", "data.csv", "data.parquet"])
def test_a_pickle_in_place_of_a_file_of_the_command_line_is_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "table.csv").write_text("a,y\n1,2\n2,3\n4,5\n")
    arguments = ["fit", path, "--target", "y"]
    if name == "model.json":
        arguments = ["predict", path, tmp_path / "table.csv"]
    done = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")


def test_types_that_parquet_pickles_are_not_unpickled(tmp_path):
    """As pyarrow did before 14.0.1 (CVE-2023-47248)."""
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Bomb()),
    }
    fields = [pa.field("a", pa.float64(), metadata=metadata), pa.field("y", pa.float64())]
    table = pa.table([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "data.parquet")
    path = str(tmp_path / "data.parquet")
    CliRunner().invoke(cli.app, ["fit", path, "--target", "y"])
    model = LinearRegression().fit_dataset(path, target="y")
    np.testing.assert_allclose(model.coef_, [2.0])


def test_a_keras_model_runs_no_code_of_its_file(tmp_path):
    """Where there should be a loss, byte code is refused, as Keras' safe mode has it."""
    import keras

    import linreg_ops.keras as lk

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), lk.LinearOutput(1)])
    model.save(tmp_path / "model.keras")
    code = marshal.dumps(compile(CODE, "stranger", "exec"))
    function = {
        "class_name": "__lambda__",
        "config": {"value": base64.b64encode(code).decode()},
        "module": "builtins",
        "registered_name": None,
    }
    hostile = tmp_path / "hostile.keras"
    with zipfile.ZipFile(tmp_path / "model.keras") as old, zipfile.ZipFile(hostile, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == "config.json":
                config = json.loads(content)
                layers = config["config"]["layers"]
                layers[-1]["config"]["loss"] = function
                content = json.dumps(config)
            new.writestr(entry, content)
    assert keras.saving.load_model(tmp_path / "model.keras").count_params() == 3
    with pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(hostile)
