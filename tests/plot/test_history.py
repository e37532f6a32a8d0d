"""Curves have the panels, labels and ticks that they promise, and can be saved."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fnn import plot

HISTORY = {
    "loss": np.array([1.0, 0.5, 0.4]),
    "accuracy": np.array([0.2, 0.6, 0.7]),
    "step": np.array([5, 10, 15]),
    "validation/loss": np.array([1.1, 0.7, 0.8]),
    "validation/f1": np.array([0.1, 0.5, 0.6]),
    "validation/confusion": np.ones((3, 2, 2)),
}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot.learning_curves(HISTORY),
        lambda: plot.learning_curves({"loss": [0.5]}),
        lambda: plot.comparison({f"run {number}": HISTORY for number in range(4)}),
        lambda: plot.comparison({"one epoch": {"loss": [0.5]}, "two": {"loss": [0.5, 0.4]}}),
    ],
)
def test_every_figure_can_be_saved(draw: Callable[[], Figure], tmp_path: Path) -> None:
    draw().savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_learning_curves_have_a_panel_for_each_metric_and_validation_beside_training() -> None:
    figure = plot.learning_curves(HISTORY)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "f1"]
    drawn = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert drawn == [["training", "validation"], ["training"], ["validation"]]
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(training.get_xydata(), [[1, 1.0], [2, 0.5], [3, 0.4]])
    np.testing.assert_array_equal(validation.get_ydata(), HISTORY["validation/loss"])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]
    assert all(axes.get_xlabel() == "epoch" for axes in figure.axes)


def test_epochs_are_whole_numbers_on_the_axis() -> None:
    for figure in (plot.learning_curves(HISTORY), plot.comparison({"a": HISTORY, "b": HISTORY})):
        for axes in figure.axes:
            ticks = np.asarray(axes.get_xticks())
            np.testing.assert_array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize("history", [{}, {"step": np.arange(3)}, {"confusion": np.ones((3, 2, 2))}])
def test_a_history_without_curves_is_refused(history: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.learning_curves(history)


def test_a_comparison_has_a_panel_for_each_run_on_common_axes() -> None:
    short = {"loss": [9.0, 5.0]}
    figure = plot.comparison({"long": HISTORY, "short": short, "third": HISTORY, "fourth": HISTORY})
    assert [axes.get_title() for axes in figure.axes] == ["long", "short", "third", "fourth"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 2, 2]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    low, high = figure.axes[0].get_ylim()
    assert low <= 0.4
    assert high >= 9.0
    assert all(axes.get_ylabel() == "loss" for axes in figure.axes)


def test_a_comparison_draws_the_metric_it_is_asked_for() -> None:
    (axes,) = plot.comparison({"run": HISTORY}, "accuracy").axes
    assert axes.get_ylabel() == "accuracy"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), HISTORY["accuracy"])


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one history"):
        plot.comparison({})
    with pytest.raises(ValueError, match="'second' has no metric 'loss'; it has accuracy"):
        plot.comparison({"first": HISTORY, "second": {"accuracy": [0.1]}})


def test_one_epoch_has_one_tick() -> None:
    """Its axis went from 0.945 to 1.050."""
    axes = plot.learning_curves({"loss": [1.0], "validation/loss": [1.1]}).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_small_text_is_sharp() -> None:
    assert plot.learning_curves({"loss": [1.0, 0.5]}).dpi == 150  # the default, 100, blurred it
