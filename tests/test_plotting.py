"""Figures hold what they were given. That they please is for eyes."""

import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from linreg_ops import plotting


def curves(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_line_plot():
    _, [axes] = plotting.figure()
    x, y = np.array([[0.0], [1.0], [4.0]]), np.array([1.0, 2.0, 3.0])
    plotting.plot_line(axes, x, y, {"ours": (1.0, 2.0), "theirs": (-1.5, 2.0)})
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.column_stack([x, y]))
    lines = curves(axes)
    assert list(lines) == ["ours: y = 2 x + 1", "theirs: y = 2 x - 1.5"]
    np.testing.assert_array_equal(lines["ours: y = 2 x + 1"].get_ydata(), [1.0, 9.0])


def test_predictions_plot():
    _, [axes] = plotting.figure()
    plotting.plot_predictions(axes, [1.0, 2.0], [1.5, 3.0])
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[1.0, 1.5], [2.0, 3.0]])
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < 1.0
    assert axes.get_xlim()[1] > 3.0


def test_residuals_plot():
    _, [axes] = plotting.figure()
    plotting.plot_residuals(axes, [1.0, 2.0], [-0.5, 0.25])
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[1.0, -0.5], [2.0, 0.25]])
    assert axes.get_ylim() == pytest.approx((-0.55, 0.55))  # zero in the middle


@pytest.mark.parametrize("offset", [0.0, -9e5, 4.0, 8e6])
def test_numbers_along_the_axes_do_not_touch(offset):
    """Whole, up to seven digits beside each other; a minus; digits behind the point."""
    values = offset + (1e-3 if offset == 4 else 8e5) * np.linspace(0.12, 0.88, 9)
    picture, panels = plotting.figure(2)
    plotting.plot_predictions(panels[0], values, values)
    plotting.plot_residuals(panels[1], values, 0 * values)
    picture.draw_without_rendering()
    for axes in panels:
        assert "e" not in axes.xaxis.get_offset_text().get_text()
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = [tick.label1.get_window_extent() for tick in ticks]
        assert len(boxes) > 2
        gap = boxes[0].height / 2
        assert all(a.x1 + gap < b.x0 for a, b in pairwise(boxes))


def test_very_many_points_are_drawn_in_part_and_it_says_so():
    _, [axes] = plotting.figure()
    x = np.arange(30_000.0)
    plotting.plot_line(axes, x, x, {"line": (0.0, 1.0)}, ("income", "food"))
    assert len(axes.collections[0].get_offsets()) == 20_000
    assert [text.get_text() for text in axes.texts] == ["20,000 of 30,000 points drawn"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("income", "food")
    assert "line: food = 1 income" in curves(axes)


def test_a_long_equation_gets_a_line_of_its_own_and_whole_thousands():
    _, [axes] = plotting.figure()
    lines = {"least squares": (1161.8768, -0.0124262)}
    plotting.plot_line(axes, [400.0, 4000.0], [900.0, 1200.0], lines, ("income", "food expenses"))
    assert list(curves(axes)) == ["least squares:\nfood expenses = -0.0124 income + 1162"]


@pytest.mark.parametrize("points", [2, 200])
def test_few_points_are_drawn_over_their_line(points):
    _, [axes] = plotting.figure()
    x = np.arange(float(points))
    plotting.plot_line(axes, x, x, {"line": (0.0, 1.0)})
    [line] = axes.get_lines()
    assert (axes.collections[0].get_zorder() > line.get_zorder()) == (points == 2)


def test_names_are_not_mathematics(tmp_path):
    """A column may be called "$a_": matplotlib would refuse it as a formula."""
    with plotting.style():
        picture, [axes] = plotting.figure()
        plotting.plot_line(axes, [1.0, 2.0], [1.0, 3.0], {"ours": (0.0, 1.0)}, ("$a_$b", "$"))
        plotting.save(picture, tmp_path / "picture.png")


@pytest.mark.parametrize(("lowest", "scale"), [(1.0, "log"), (0.0, "linear")])
def test_losses_plot(lowest, scale):
    _, [axes] = plotting.figure()
    plotting.plot_losses(axes, {"a": [4.0, 2.0, lowest], "b": [4.0, 3.0]}, floor=0.5)
    lines = curves(axes)
    assert list(lines) == ["least squares", "a", "b"]
    np.testing.assert_array_equal(lines["a"].get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(lines["b"].get_ydata(), [4.0, 3.0])
    assert axes.get_yscale() == scale


def test_long_losses_spread_their_first_steps():
    _, [axes] = plotting.figure()
    plotting.plot_losses(axes, {"a": np.linspace(2, 1, 501)})
    assert axes.get_xscale() == "symlog"


def test_network_plot():
    _, [axes] = plotting.figure()
    plotting.plot_network(axes, ["1", "x"])
    texts = {text.get_text() for text in axes.texts}
    assert {"1", "x", "Σ", "ŷ", "$w_0$", "$w_1$"} <= texts


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_save(suffix, tmp_path):
    with plotting.style():
        picture, (left, right) = plotting.figure(2)
        plotting.plot_predictions(left, [1.0, 2.0], [1.5, 3.0])
        plotting.plot_losses(right, {"a": [2.0, 1.0]})
        path = tmp_path / f"picture.{suffix}"
        plotting.save(picture, path)
    if suffix == "png":
        assert imread(path).shape[:2] == (880, 2240)
    else:
        assert path.stat().st_size > 1000


def test_empty_data_is_no_error(tmp_path):
    with plotting.style():
        picture, (a, b, c) = plotting.figure(3)
        plotting.plot_line(a, np.zeros((0, 1)), [], {"line": (0.0, 1.0)})
        plotting.plot_predictions(b, [], [])
        plotting.plot_losses(c, {})
        plotting.save(picture, tmp_path / "picture.png")


def test_leaves_the_callers_settings_alone():
    before = dict(mpl.rcParams)
    with plotting.style():
        plotting.figure()
    assert dict(mpl.rcParams) == before


def test_without_matplotlib_says_what_to_install():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try: import linreg_ops.plotting\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd="/", capture_output=True, text=True
    )
    assert "pip install matplotlib" in done.stdout
