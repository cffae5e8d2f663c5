"""What panels of studies share: the numbers that they draw."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

mpl.use("Agg")
import matplotlib.pyplot as plt

from theorysim import study


@pytest.fixture
def panel():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


SIZES = np.array([2.0, 4.0, 8.0])
SAMPLES = xr.DataArray(
    np.random.default_rng(0).uniform(1, 2, (3, 5)) * SIZES[:, None] ** -0.5, {"width": SIZES}, ("width", "repeat")
)


def drawn_points(panel):
    """The points of each container with error bars: where, how high, and how far up."""
    found = []
    for container in panel.containers:
        line, _, (bars,) = container
        segments = np.array(bars.get_segments())
        found.append(
            (line.get_xdata(orig=False), line.get_ydata(orig=False), (segments[:, 1, 1] - segments[:, 0, 1]) / 2)
        )
    return found


def test_points_are_means_with_standard_errors_full_or_open(panel):
    study.points(panel, SAMPLES, filled=SAMPLES["width"] < 5, color="red", label="networks")
    (x, y, error), (x_open, y_open, _) = drawn_points(panel)
    np.testing.assert_allclose([*x, *x_open], SIZES)
    np.testing.assert_allclose([*y, *y_open], SAMPLES.mean("repeat"))
    np.testing.assert_allclose(error, SAMPLES.std("repeat", ddof=1)[:2] / np.sqrt(5))
    assert [container[0].get_markerfacecolor() for container in panel.containers] == ["red", "white"]
    assert panel.get_legend_handles_labels()[1] == ["networks"]


def test_the_narrowest_and_the_widest_are_set_apart(panel):
    table = SAMPLES.expand_dims(step=[1.0, 10.0]).transpose("width", "step", "repeat")
    study.narrow_and_wide(panel, table, "red", apart=1.1, label="train, ")
    (x, y, _), (x_wide, y_wide, _) = drawn_points(panel)
    np.testing.assert_allclose(x, np.array([1, 10]) / 1.1)
    np.testing.assert_allclose(x_wide, np.array([1, 10]) * 1.1)
    np.testing.assert_allclose([y[0], y_wide[0]], SAMPLES.mean("repeat").values[[0, -1]])
    assert panel.get_legend_handles_labels()[1] == ["train, width 2", "train, width 8"]


def test_the_error_of_a_root_mean_square_is_that_of_the_delta_method(panel):
    study.rms_points(panel, SAMPLES)
    ((_, y, error),) = drawn_points(panel)
    squares = SAMPLES.values**2
    np.testing.assert_allclose(y, np.sqrt(squares.mean(1)))
    np.testing.assert_allclose(error, squares.std(1, ddof=1) / np.sqrt(5) / (2 * y))


def test_a_power_line_goes_through_the_points_of_its_power(panel):
    study.power_line(panel, SIZES, 3 * SIZES**-1.5, -1.5)
    np.testing.assert_allclose(panel.lines[0].get_ydata(), 3 * SIZES**-1.5)


def test_a_density_sums_to_the_share_of_values_between_its_edges(panel):
    values = xr.DataArray(np.random.default_rng(1).normal(size=(4, 50)), dims=("repeat", "test"))
    edges = np.array([-1.0, -0.5, 0.5, 1.0])
    study.density_points(panel, values, edges)
    ((x, y, _),) = drawn_points(panel)
    np.testing.assert_allclose(x, [-0.75, 0, 0.75])
    assert y @ np.diff(edges) == pytest.approx(float((abs(values) < 1).mean()))


def test_the_cover_of_intervals_has_the_error_of_their_level(panel):
    inside = xr.DataArray([[True, False, True, True]] * 2, {"level": [0.5, 0.75]}, ("level", "repeat"))
    study.cover_points(panel, inside, shift=0.01)
    ((x, y, error),) = drawn_points(panel)
    np.testing.assert_allclose(x, [0.51, 0.76])
    np.testing.assert_allclose(y, [25, 0])
    np.testing.assert_allclose(error, 100 * np.sqrt([0.25 / 4, 0.1875 / 4]))


def test_ticks_inside_leave_the_axis_as_it_is(panel):
    panel.set_xlim(1, 10)
    study.plain_ticks(panel.xaxis, [0.5, 2.0, 20.0], inside=True)
    assert panel.get_xlim() == (1, 10)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["2"]


def test_panels_are_drawn_row_by_row():
    figure = study.drawn([1, 2], *(lambda panel, data, i=i: panel.plot(data, [i, i]) for i in range(4)), columns=2)
    assert [panel.lines[0].get_ydata()[0] for panel in figure.axes] == [0, 1, 2, 3]
    plt.close(figure)


def test_datasets_are_stacked_by_name():
    found = study.stack({name: xr.Dataset({"a": ("x", [i, i])}) for i, name in enumerate("uv")}, "case")
    assert found["a"].dims == ("case", "x")
    assert found["a"].sel(case="v").values.tolist() == [1, 1]
