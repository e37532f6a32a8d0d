"""What a network answers, and what it looks for."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure

from fnn.plot.panels import new_figure, panels

ENDS = ("#08306b", "#67000d")  # of two classes: the dark blue and red at the ends of a surface's colours
CLASSES = ("tab:green", "tab:orange", "tab:purple", "tab:olive", "tab:pink", "tab:gray", "tab:brown")


def predictions(target: Any, predicted: Any, *, name: str = "target") -> Figure:
    """Draw what a regression predicts against what is true; a perfect one lies on the diagonal.

    Args:
        target: The true values, ``(n,)`` or ``(n, 1)``.
        predicted: The predicted ones, likewise.
        name: What is predicted, with its unit.

    Returns:
        A figure.

    Raises:
        ValueError: when the two differ in number, or are empty.

    Example:
        >>> import fnn.plot
        >>> figure = fnn.plot.predictions([1.0, 2.0, 3.0], [1.1, 1.9, 2.5], name="price in euros")
    """
    target, predicted = np.asarray(target).reshape(-1), np.asarray(predicted).reshape(-1)
    if len(target) != len(predicted) or not len(target):
        raise ValueError(f"wanted one prediction for each target, got {len(predicted)} for {len(target)}")
    figure = new_figure(4.4, 4.2)
    axes = figure.add_subplot(aspect="equal")
    axes.axline((target[0], target[0]), slope=1, color="gray", linewidth=1)
    many = len(target) > 500
    axes.scatter(target, predicted, s=6 if many else 16, alpha=0.25 if many else 0.7, linewidths=0)
    low, high = min(target.min(), predicted.min()), max(target.max(), predicted.max())
    margin = 0.05 * max(high - low, 1e-6)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    axes.grid(alpha=0.3)
    return figure


def confusion(matrix: Any, names: Sequence[str] | None = None) -> Figure:
    """Draw a confusion matrix: rows are the true classes, columns the predicted ones.

    Colours show the share of each row, numbers count examples.

    Args:
        matrix: Counts, ``(classes, classes)``, such as `fnn.confusion_matrix` computes.
        names: Names of the classes.

    Returns:
        A figure.

    Raises:
        ValueError: when the matrix is not square.

    Example:
        >>> import fnn.plot
        >>> figure = fnn.plot.confusion([[8, 2], [0, 5]], names=["cat", "dog"])
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a confusion matrix is square, got {matrix.shape}")
    classes = len(matrix)
    names = [str(label) for label in (range(classes) if names is None else names)]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(3.5, 0.52 * classes + 1.4)
    figure = new_figure(side + 0.6, side)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if classes <= 20:
        for row, column in np.ndindex(matrix.shape):
            if matrix[row, column]:
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=color, fontsize=8)
    turn = max(map(len, names)) > 3
    axes.set_xticks(range(classes), names, rotation=45 if turn else 0, ha="right" if turn else "center")
    axes.set_yticks(range(classes), names)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def filters(kernel: Any) -> Figure:
    """Draw the filters of a first convolution as small pictures.

    Args:
        kernel: ``(height, width, channels, features)``; filters on three channels are drawn in colour, others as the
            mean over channels.

    Returns:
        A figure with one panel for each filter; a symmetric scale makes zero white where it is not in colour.

    Raises:
        ValueError: when the kernel is not of rank 4.

    Example:
        >>> import fnn.plot, numpy as np
        >>> len(fnn.plot.filters(np.ones((3, 3, 1, 8))).axes)
        8
    """
    kernel = np.asarray(kernel, dtype=np.float32)
    if kernel.ndim != 4:
        raise ValueError(f"a kernel of images is (height, width, channels, features), got {kernel.shape}")
    features = kernel.shape[-1]
    figure, axes = panels(features, columns=8, size=(0.9, 0.9))
    limit = np.abs(kernel).max() or 1.0
    for number, panel in enumerate(axes):
        picture = kernel[..., number]
        if picture.shape[-1] == 3:
            panel.imshow(np.clip(picture / (2 * limit) + 0.5, 0, 1))
        else:
            panel.imshow(picture.mean(axis=-1), cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.set(xticks=[], yticks=[])
    return figure


def decision_surface(
    function: Callable[[Any], Any], x: Any, target: Any, *, boundary: float | None = None, steps: int = 200
) -> Figure:
    """Draw what a network of two inputs answers on the plane, with the data on top.

    Args:
        function: Maps points ``(n, 2)`` to one score each, ``(n,)`` or ``(n, 1)``.
        x: Data points, ``(n, 2)``.
        target: One class for each point, ``(n,)`` or ``(n, 1)``.
        boundary: The score at which the decision changes, such as 0 for logits: a line is drawn there, and white is
            centred on it.
        steps: Points of the grid along each axis.

    Returns:
        A figure.

    Raises:
        ValueError: when x is not ``(n, 2)``.

    Example:
        >>> import fnn.plot, numpy as np
        >>> figure = fnn.plot.decision_surface(lambda x: x[:, 0], np.eye(2), np.arange(2), steps=10)
    """
    x, target = np.asarray(x), np.asarray(target).reshape(-1)
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"a decision surface needs points on a plane, (n, 2), got {x.shape}")
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.25 * np.maximum(high - low, 1e-6)
    grid = np.meshgrid(*(np.linspace(a, b, steps) for a, b in zip(low - margin, high + margin)))
    points = np.stack([axis.ravel() for axis in grid], axis=-1).astype(np.float32)
    scores = np.asarray(function(points)).reshape(steps, steps)
    figure = new_figure(5, 4)
    axes = figure.add_subplot()
    norm = None if boundary is None else CenteredNorm(boundary)
    surface = axes.contourf(*grid, scores, levels=20, norm=norm, cmap="RdBu_r", alpha=0.8)
    if boundary is not None and scores.min() < boundary < scores.max():
        axes.contour(*grid, scores, levels=[boundary], colors="black", linewidths=1.2)
    labels = np.unique(target)
    colours = ENDS if len(labels) <= 2 else CLASSES
    for label, marker, colour in zip(labels, itertools.cycle("os^Dv*"), itertools.cycle(colours)):
        mine = target == label
        axes.scatter(*x[mine].T, marker=marker, s=60, edgecolor="white", color=colour, label=f"target {label:g}")
    axes.set(xlabel="input 1", ylabel="input 2")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=6, frameon=False)
    figure.colorbar(surface, label="output")
    return figure
