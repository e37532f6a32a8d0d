"""Pictures of what a network answers have the labels and values that they promise, and can be saved."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import AxLine

from fnn import plot


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot.predictions([1.0, 2.0, 3.0], [1.5, 2.0, 2.5]),
        lambda: plot.predictions([1.0], [1.0]),
        lambda: plot.confusion(np.diag([3, 0, 5]), ["cat", "dog", "wolverine"]),
        lambda: plot.confusion(np.eye(30)),
        lambda: plot.filters(np.ones((3, 3, 2, 9))),
        lambda: plot.filters(np.zeros((3, 3, 3, 2))),
        lambda: plot.decision_surface(lambda x: x[:, :1] - x[:, 1:], np.eye(2), [0, 1], boundary=0.0, steps=10),
        lambda: plot.decision_surface(lambda x: np.ones(len(x)), np.eye(2), [0, 1], boundary=0.5, steps=10),
    ],
)
def test_every_figure_can_be_saved(draw: Callable[[], Figure], tmp_path: Path) -> None:
    draw().savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


# Predictions


def test_predictions_lie_over_the_true_values_on_square_axes() -> None:
    (axes,) = plot.predictions([[1.0], [2.0], [5.0]], [1.5, 2.0, 9.0], name="price").axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[1, 1.5], [2, 2], [5, 9]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true price", "predicted price")
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1
    assert axes.get_xlim()[1] > 9
    diagonal = axes.lines[0]
    assert isinstance(diagonal, AxLine)
    assert diagonal.get_slope() == 1
    assert len(set(diagonal.get_xy1() or ())) == 1


@pytest.mark.parametrize(("target", "predicted"), [([1.0, 2.0], [1.0]), ([], []), (np.ones(4), np.ones((4, 2)))])
def test_predictions_and_targets_must_be_equally_many(target: object, predicted: object) -> None:
    with pytest.raises(ValueError, match="one prediction for each target"):
        plot.predictions(target, predicted)


# Confusion


def test_a_confusion_matrix_shows_counts_and_colours_shares_of_the_true_class() -> None:
    figure = plot.confusion([[8, 2], [0, 5]], names=["cat", "dog"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "8"),
        ((1, 0), "2"),
        ((1, 1), "5"),
    }
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0.8, 0.2], [0, 1]])
    assert figure.axes[1].get_ylabel() == "share of the true class"


def test_a_class_without_examples_has_a_share_of_zero() -> None:
    axes = plot.confusion([[3, 1], [0, 0]]).axes[0]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array())[1], 0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_long_class_names_are_turned() -> None:
    turned = plot.confusion(np.eye(2), ["aeroplane", "ship"]).axes[0].get_xticklabels()
    level = plot.confusion(np.eye(2), ["a", "b"]).axes[0].get_xticklabels()
    assert [label.get_rotation() for label in (turned[0], level[0])] == [45, 0]


def test_many_classes_are_drawn_without_numbers() -> None:
    assert len(plot.confusion(np.eye(20)).axes[0].texts) == 20
    assert len(plot.confusion(np.eye(21)).axes[0].texts) == 0


@pytest.mark.parametrize("shape", [(2, 3), (4,), (2, 2, 2)])
def test_a_confusion_matrix_must_be_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square"):
        plot.confusion(np.ones(shape))


# Filters


def test_filters_share_a_scale_that_is_symmetric_about_zero() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 5, 2, 9)).astype(np.float32)
    figure = plot.filters(kernel)
    assert len(figure.axes) == 9
    limit = np.abs(kernel).max()
    for number, axes in enumerate(figure.axes):
        image = axes.images[0]
        np.testing.assert_allclose(np.asarray(image.get_array()), kernel[..., number].mean(-1), rtol=1e-5)
        assert image.get_clim() == (-limit, limit)
        assert (len(axes.get_xticks()), len(axes.get_yticks())) == (0, 0)


def test_filters_on_three_channels_are_drawn_in_colour_with_zero_gray() -> None:
    kernel = np.zeros((1, 2, 3, 1), np.float32)
    kernel[0, 1, :, 0] = [-2, 2, 0]
    picture = np.asarray(plot.filters(kernel).axes[0].images[0].get_array())
    np.testing.assert_allclose(picture, [[[0.5, 0.5, 0.5], [0, 1, 0.5]]])


def test_filters_must_be_of_images() -> None:
    with pytest.raises(ValueError, match=r"height, width, channels, features\), got \(3, 8, 4\)"):
        plot.filters(np.ones((3, 8, 4)))


# Surfaces


def test_a_decision_surface_asks_the_function_on_a_grid_around_the_data() -> None:
    asked = []

    def function(x: np.ndarray) -> np.ndarray:
        asked.append(x)
        return x[:, 0]

    figure = plot.decision_surface(function, np.array([[0.0, 10.0], [4.0, 30.0]]), [[0], [1]], steps=7)
    (points,) = asked
    assert (points.shape, points.dtype) == ((49, 2), np.float32)
    np.testing.assert_allclose([points.min(0), points.max(0)], [[-1, 5], [5, 35]])
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("input 1", "input 2", "output")
    np.testing.assert_allclose([axes.get_xlim(), axes.get_ylim()], [[-1, 5], [5, 35]])


def test_a_decision_surface_marks_every_class_however_many() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    axes = plot.decision_surface(lambda x: x[:, 0], x, np.arange(20) % 10, steps=5).axes[0]
    marked = {str(part.get_label()): len(np.asarray(part.get_offsets())) for part in axes.collections}
    for number in range(10):
        assert marked[f"target {number}"] == 2


def test_a_boundary_is_drawn_where_the_score_has_its_value_and_white_is_centred_there() -> None:
    axes = plot.decision_surface(lambda x: x[:, 0], np.eye(2), [0, 1], boundary=0.3, steps=50).axes[0]
    surface, line = axes.collections[:2]
    assert isinstance(surface.norm, matplotlib.colors.CenteredNorm)
    assert surface.norm.vcenter == 0.3
    vertices = np.concatenate([path.vertices for path in line.get_paths()])
    np.testing.assert_allclose(vertices[:, 0], 0.3, atol=1e-6)


def test_a_boundary_that_no_score_reaches_is_not_drawn() -> None:
    drawn = [plot.decision_surface(lambda x: x[:, 0], np.eye(2), [0, 1], boundary=b, steps=9) for b in (0.5, 5.0)]
    crossed, missed = (len(figure.axes[0].collections) for figure in drawn)
    assert missed == crossed - 1


def test_a_decision_surface_needs_points_on_a_plane() -> None:
    with pytest.raises(ValueError, match=r"points on a plane, \(n, 2\), got \(4, 3\)"):
        plot.decision_surface(lambda x: x[:, 0], np.ones((4, 3)), np.arange(4))


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_on_a_surface_differ_in_colour(classes: int) -> None:
    """All were white, and told apart by their shape alone."""
    x = np.random.default_rng(0).normal(size=(12, 2))
    axes = plot.decision_surface(lambda x: x[:, 0], x, np.arange(12) % classes, steps=10).axes[0]
    drawn = [points for points in axes.collections if str(points.get_label()).startswith("target")]
    colours = {matplotlib.colors.to_hex(np.asarray(points.get_facecolor())[0]) for points in drawn}
    assert len(colours) == len(drawn) == classes
    assert "#ffffff" not in colours
