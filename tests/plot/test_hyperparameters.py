"""Pictures of hyperparameters have their scales: logarithmic where drawn so, names where chosen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

import fnn
from fnn import plot
from tests.plot.studied import SPACE, studied

NAMES = list(SPACE)


def ticks(axis: object) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]  # type: ignore[attr-defined]


def points(axes: Axes) -> dict[str, np.ndarray]:
    return {str(part.get_label()): np.asarray(part.get_offsets()) for part in axes.collections}


@pytest.mark.parametrize(
    "draw", [plot.parallel_coordinates, plot.slices, lambda result: plot.contour(result, "learning_rate", "rate")]
)
@pytest.mark.parametrize(
    "result",
    [studied(), studied(trials=1), studied(trials=5, diverged=2), studied(3, diverged=3), studied(2), studied(150, 1)],
    ids=["some", "one trial", "diverged", "all diverged", "two", "many"],
)
def test_every_figure_can_be_saved(
    draw: Callable[[fnn.StudyResult], Figure], result: fnn.StudyResult, tmp_path: Path
) -> None:
    figure = draw(result)
    figure.savefig(tmp_path / "picture.png")
    for axes in figure.axes:
        assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()


# Parallel coordinates


def test_parallel_coordinates_have_an_axis_for_each_hyperparameter_and_the_score() -> None:
    host, *others = plot.parallel_coordinates(studied()).axes
    assert ticks(host.xaxis) == [*NAMES, "loss"]
    assert [axes.get_yscale() for axes in others] == ["log", "linear", "linear", "linear", "linear"]
    assert ticks(others[2].yaxis) == ["8", "32", "128"]
    assert ticks(others[3].yaxis) == ["tanh", "identity"]
    places = [axes.spines["right"].get_position() for axes in others]
    assert places == [("axes", place / 4) for place in range(5)]


def test_a_line_goes_through_the_values_of_its_trial_and_the_best_is_on_top() -> None:
    result = studied(diverged=2)
    host, rate_axis, *_ = plot.parallel_coordinates(result).axes
    without, lines = (part for part in host.collections if isinstance(part, LineCollection))
    assert len(without.get_segments()) == 2
    segments = np.array(lines.get_segments())
    assert segments.shape == (4, 5, 2)
    low, high = np.log(rate_axis.get_ylim())
    wanted = (np.log(result.configurations[0]["learning_rate"]) - low) / (high - low)
    np.testing.assert_allclose(segments[-1, 0], [0, wanted])
    assert np.argmin(segments[:, -1, 1]) == 3
    assert ((segments[..., 1] >= 0) & (segments[..., 1] <= 1)).all()
    np.testing.assert_allclose(np.asarray(lines.get_array()), result.scores()[[3, 2, 1, 0]])


@pytest.mark.parametrize("maximize", [False, True])
def test_a_better_line_is_darker(maximize: bool) -> None:
    result = studied(
        measured=lambda step, trial, seed: float(-trial if maximize else trial), maximize=maximize, seeds=1
    )
    (lines,) = plot.parallel_coordinates(result).axes[0].collections
    lines.update_scalarmappable()
    brightness = np.asarray(lines.get_edgecolor())[:, :3].sum(axis=1)
    assert (np.diff(brightness) < 0).all()


def test_names_choose_what_is_drawn_and_in_which_order() -> None:
    assert ticks(plot.parallel_coordinates(studied(), ["width", "rate"]).axes[0].xaxis) == ["width", "rate", "loss"]
    assert [axes.get_xlabel() for axes in plot.slices(studied(), ["rate"]).axes] == ["rate"]


def test_hyperparameters_that_stay_the_same_are_left_out() -> None:
    result = studied(2, space=fnn.table([{"a": 1, "b": 2.0}, {"a": 1, "b": 3.0}]))
    assert [axes.get_xlabel() for axes in plot.slices(result).axes] == ["b"]


# Slices


def test_slices_have_a_panel_for_each_hyperparameter_with_its_scale() -> None:
    figure = plot.slices(studied())
    assert [axes.get_xlabel() for axes in figure.axes] == NAMES
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear", "linear"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert ticks(figure.axes[3].xaxis) == ["tanh", "identity"]


def test_a_slice_has_every_trial_and_marks_the_best_and_those_without_score() -> None:
    result = studied(diverged=2)
    axes = plot.slices(result).axes[0]
    drawn, rates = points(axes), [row["learning_rate"] for row in result.configurations]
    np.testing.assert_allclose(drawn["trial"], np.stack([rates, result.scores()], axis=-1)[:4])
    np.testing.assert_allclose(drawn["best"], [[rates[0], result.scores()[0]]])
    np.testing.assert_allclose(drawn["without score"], [[rate, axes.get_ylim()[1]] for rate in rates[4:]])


@pytest.mark.parametrize(("status", "label"), [("finished", "far worse"), ("evicted", "evicted, far worse")])
def test_a_score_far_worse_than_the_median_stands_at_the_end_of_the_axis(status: Any, label: str) -> None:
    result = studied(seeds=1)
    result.runs[-1].best_value, result.runs[-1].status = 1e6, status
    axes = plot.slices(result).axes[0]
    assert axes.get_ylim()[1] < 10
    np.testing.assert_allclose(points(axes)[label][:, 1], axes.get_ylim()[1])
    assert len(points(axes)["trial"]) == 5


def test_trials_of_a_category_lie_side_by_side() -> None:
    result = studied(20)
    drawn = points(plot.slices(result, ["width"]).axes[0])["trial"][:, 0]
    widths = np.array([row["width"] for row in result.configurations])
    np.testing.assert_array_equal(np.round(drawn), np.searchsorted([8, 32, 128], widths))
    assert len(set(drawn)) == 20


def test_every_second_category_is_a_shaded_field() -> None:
    """Trials lie side by side within a category, which looked like values between the categories."""
    panel: Any = plot.slices(studied(20), ["width"]).axes[0]
    fields = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in panel.patches)
    assert fields == [(-0.5, 0.5), (1.5, 2.5)]
    assert not plot.slices(studied(), ["rate"]).axes[0].patches


def test_many_numbers_to_choose_from_are_a_continuous_axis() -> None:
    rates = np.geomspace(1e-4, 1e-1, 12).tolist()
    for values, scale in ((rates, "log"), (list(range(12)), "linear")):
        axes = plot.slices(studied(12, space=fnn.grid({"value": values}))).axes[0]
        assert axes.get_xscale() == scale
        np.testing.assert_allclose(points(axes)["trial"][:, 0], values)


def test_long_names_of_categories_are_cut_and_turned() -> None:
    space = fnn.grid({"optimizer": ["stochastic gradient descent", "adam", "adam with decay"]})
    labels = plot.slices(studied(3, space=space)).axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["stochastic grad…", "adam", "adam with decay"]
    assert [label.get_rotation() for label in labels] == [30, 30, 30]


# Contours


def test_a_contour_has_the_scales_of_its_hyperparameters_and_the_trials_on_top() -> None:
    result = studied(12, diverged=2)
    axes, bar = plot.contour(result, "learning_rate", "rate").axes
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("learning_rate", "rate", "loss")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    places = np.array([[row["learning_rate"], row["rate"]] for row in result.configurations])
    drawn = [np.asarray(part.get_offsets()) for part in axes.collections if not isinstance(part, ContourSet)]
    for found, wanted in zip(drawn, (places[:10], places[10:], places[:1]), strict=True):
        np.testing.assert_allclose(found, wanted)


def test_a_surface_is_linear_between_trials_in_the_logarithm_of_a_logarithmic_axis() -> None:
    corners = [(1e-4, 0.0), (1.0, 0.0), (1e-4, 1.0), (1.0, 1.0)]
    rows = [{"learning_rate": rate, "rate": other} for rate, other in corners]
    space = fnn.table(rows)
    dimensions = {"learning_rate": fnn.log_uniform(1e-5, 10.0), "rate": fnn.uniform(-1.0, 2.0)}
    result = studied(4, 1, space=type(space)(dimensions, "table", tuple(rows)))
    for run in result.runs:
        run.best_value = 1.0 + np.log10(rows[run.id.trial]["learning_rate"]) / 4
    axes = plot.contour(result, "learning_rate", "rate").axes[0]
    (surface,) = (part for part in axes.collections if isinstance(part, ContourSet))
    np.testing.assert_allclose(np.asarray(surface.levels), np.linspace(0, 1, 13), atol=1e-6)
    band = np.log10(np.asarray(surface.get_paths()[7].vertices)[:, 0])  # the first is what is below all levels
    np.testing.assert_allclose([band.min(), band.max()], [4 * 6 / 12 - 4, 4 * 7 / 12 - 4], atol=1e-3)


def test_trials_that_share_a_point_count_with_their_mean_and_those_on_a_line_have_no_surface() -> None:
    def surfaces(rows: list[dict[str, float]]) -> int:
        figure = plot.contour(studied(len(rows), space=fnn.table(rows)), "a", "b")
        return sum(isinstance(part, ContourSet) for part in figure.axes[0].collections)

    square = [{"a": a, "b": b} for a in (1.0, 2.0) for b in (1.0, 2.0)]
    assert surfaces(square + square) == 1
    assert surfaces([{"a": a, "b": a} for a in (1.0, 2.0, 3.0)]) == 0
    assert surfaces(square[:2]) == 0


def test_bad_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'speed' is no hyperparameter of the study; there is learning_rate, rate"):
        plot.slices(studied(), ["speed"])
    with pytest.raises(ValueError, match="'activation' is chosen from values such as tanh, which lie on no axis"):
        plot.contour(studied(), "learning_rate", "activation")
    with pytest.raises(ValueError, match="no hyperparameter to draw"):
        plot.parallel_coordinates(studied(1, space=[{}]))
