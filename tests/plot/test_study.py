"""Pictures of a study's trainings show every run, and the best ones apart from the others."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import fnn
from fnn import plot
from tests.plot.studied import loss_at, studied


def of_kind(axes: Axes, kind: type) -> list:
    return [part for part in axes.collections if isinstance(part, kind)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_best_trials_are_means_with_bands_and_the_others_grey_lines(tmp_path: Path) -> None:
    figure = plot.study_curves(studied(), top=2)
    (axes,) = figure.axes
    best, second, _ = axes.lines
    grid = list(range(10, 110, 10))
    wanted = [(loss_at(step, 0, 0) + loss_at(step, 0, 1)) / 2 for step in grid]
    np.testing.assert_allclose(np.asarray(best.get_xydata()), np.stack([grid, wanted], axis=-1))
    assert best.get_color() != second.get_color()
    (band, _) = of_kind(axes, PolyCollection)
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [loss_at(100, 0, 0), loss_at(10, 0, 1)])
    (grey,) = of_kind(axes, LineCollection)
    assert len(grey.get_segments()) == 4 * 2
    score = (loss_at(100, 0, 0) + loss_at(100, 0, 1)) / 2
    assert legend(figure)[0] == f"trial 0: {score:.4g}"
    assert legend(figure)[2:] == ["the others"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")
    figure.savefig(tmp_path / "curves.png")


def test_a_run_that_ended_earlier_stays_in_the_mean_at_its_last_value() -> None:
    result = studied(trials=1)
    early = result.runs[1]
    early.steps, early.measured = early.steps[:4], {"loss": [5.0, 4.0, 3.0, 2.0]}
    mean = np.asarray(plot.study_curves(result).axes[0].lines[0].get_ydata())
    np.testing.assert_allclose(mean[3:], [(loss_at(step, 0, 0) + 2.0) / 2 for step in range(40, 110, 10)])


def test_a_single_run_has_no_band() -> None:
    (axes,) = plot.study_curves(studied(trials=1, seeds=1)).axes
    assert not of_kind(axes, PolyCollection)
    assert len(axes.lines) == 1


def test_runs_that_diverged_end_in_a_cross_inside_the_axes() -> None:
    result = studied(diverged=2)
    for run in result.runs[-2:]:
        run.measured["loss"][-1] = 1e30
    figure = plot.study_curves(result)
    (axes,) = figure.axes
    (crosses,) = of_kind(axes, PathCollection)
    points = np.asarray(crosses.get_offsets())
    assert points[:, 0].tolist() == [20.0] * 4
    low, high = axes.get_ylim()
    assert high < 100
    assert ((low <= points[:, 1]) & (points[:, 1] <= high)).all()
    assert legend(figure)[-1] == "diverged"


def test_a_study_in_which_all_diverged_is_drawn_in_grey(tmp_path: Path) -> None:
    figure = plot.study_curves(studied(trials=3, diverged=3))
    assert legend(figure) == ["all runs", "diverged"]
    figure.savefig(tmp_path / "curves.png")


def test_values_that_fall_far_have_a_logarithmic_axis_and_rising_ones_never() -> None:
    falling = studied(measured=lambda step, trial, seed: 10.0 ** (-step / 30) * (1 + trial))
    rising = studied(measured=lambda step, trial, seed: 10.0 ** (step / 100 - 1.5) / (1 + trial), maximize=True)
    assert plot.study_curves(falling).axes[0].get_yscale() == "log"
    assert plot.study_curves(rising).axes[0].get_yscale() == "linear"
    assert plot.study_curves(studied(trials=2)).axes[0].get_yscale() == "linear"


def test_values_that_are_not_finite_leave_the_axes_finite() -> None:
    result = studied()
    result.runs[-1].measured["loss"][3:6] = [float("nan"), float("inf"), float("-inf")]
    (axes,) = plot.study_curves(result).axes
    assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()


def test_what_is_no_curve_is_refused() -> None:
    result = studied(trials=2)
    with pytest.raises(ValueError, match="'accuracy' was not measured; there is loss"):
        plot.study_curves(result, "accuracy")
    with pytest.raises(ValueError, match="top is a number of trials, got -1"):
        plot.study_curves(result, top=-1)
    for run in result.runs:
        run.measured["confusion"] = [np.eye(2)] * 10
    with pytest.raises(ValueError, match=r"'confusion' is an array \(2, 2\) at each step"):
        plot.study_curves(result, "confusion")


def test_importance_has_a_bar_for_each_hyperparameter_the_largest_on_top() -> None:
    space = {"noise": fnn.uniform(0.0, 1.0), "learning_rate": fnn.log_uniform(1e-4, 1.0)}
    result = studied(trials=40, seeds=1, space=space)
    for run, configuration in zip(result.runs, result.configurations):
        run.best_value = abs(np.log10(configuration["learning_rate"]) + 2)
    (axes,) = plot.importance(result).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["learning_rate", "noise"]
    assert axes.yaxis_inverted()
    widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert widths[0] > 0.9
    np.testing.assert_allclose(sum(widths), 1)
