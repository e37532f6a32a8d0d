"""What the hyperparameters of a study have to do with its scores."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.tri import LinearTriInterpolator, Triangulation

from fnn.plot.panels import new_figure, panels
from fnn.plot.scales import Scale, chosen_names, colours, hyperparameter_scale, score_scale, values_of
from fnn.studies.result import StudyResult
from fnn.studies.space import is_number, show

GRID = 250  # points along each axis of a contour
LEVELS = 13  # of its colours
SPREAD = 0.5  # how wide the trials of a category lie side by side
CROWD = 100  # trials; more of them are drawn fainter
FADE = 6  # how fast lines of a crowd fade from the best to the worst


def parallel_coordinates(result: StudyResult, names: Sequence[str] | None = None) -> Figure:
    """Draw each trial as a line through its hyperparameters to its score; the better, the darker.

    Trials without a score, because a run diverged or did not end, are dashed; those that halving evicted are grey and
    go to no score. Scores that are far worse than the median stand at the end of their axis.

    Args:
        result: From `fnn.study`.
        names: Hyperparameters to draw, from left to right. None: all that vary.

    Returns:
        A figure whose first axes hold the lines, and one more for each hyperparameter and the score.

    Raises:
        ValueError: when the study has no hyperparameter, or none of a name.

    Example:
        >>> import fnn, fnn.plot, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.dense(1)
        ...     return net, fnn.supervised(net, optax.losses.squared_error), hp["optimizer"](hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> space = fnn.grid({"learning_rate": [0.01, 0.1], "optimizer": [optax.sgd, optax.adam]})
        >>> result = fnn.study(trial, space, data=(x, 2 * x), steps=20, key=jax.random.key(0), progress=False)
        >>> figure = fnn.plot.parallel_coordinates(result)
        >>> [label.get_text() for label in figure.axes[2].get_yticklabels()]
        ['sgd', 'adam']
    """
    names = chosen_names(result, names)
    scores = result.scores()
    score = score_scale(scores, result.maximize)
    scales = [hyperparameter_scale(result.space.dimensions[name], values_of(result, name)) for name in names] + [score]
    titles = [*names, result.monitor]
    figure = new_figure(max(4.5, 1.2 + 1.7 * len(names)), 4.0)
    host = figure.add_subplot(xlim=(0, len(names)), ylim=(0, 1), yticks=[])
    _lines(host, scales, scores, result)
    for place, scale in enumerate(scales):
        axes = host.twinx()
        scale.show_on(axes, "y")
        axes.spines[["left", "top", "bottom"]].set_visible(False)
        axes.spines["right"].set_position(("axes", place / len(names)))
        for label in axes.get_yticklabels():
            label.set(fontsize=8, path_effects=[withStroke(linewidth=3, foreground="white")])
    turn = max(map(len, titles)) > 14
    host.xaxis.tick_top()
    host.set_xticks(range(len(titles)), titles, rotation=20 if turn else 0, ha="left" if turn else "center")
    host.tick_params(length=0)
    host.spines[:].set_visible(False)
    figure.legend(*host.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def slices(result: StudyResult, names: Sequence[str] | None = None) -> Figure:
    """Draw the score of each trial over each hyperparameter, a panel for each.

    The best trial is a star, those that halving evicted are grey; one without a score is a cross on the worse end of
    the axis, and so is a triangle that points to a score far worse than the median. Trials of a category lie side by
    side, in order of their numbers.

    Args:
        result: From `fnn.study`.
        names: Hyperparameters to draw. None: all that vary.

    Returns:
        A figure.

    Raises:
        ValueError: when the study has no hyperparameter, or none of a name.

    Example:
        >>> import fnn, fnn.plot, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.dense(1)
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> space = {"learning_rate": fnn.log_uniform(1e-3, 1e-1)}
        >>> result = fnn.study(
        ...     trial, space, trials=4, data=(x, 2 * x), steps=20, key=jax.random.key(0), progress=False
        ... )
        >>> fnn.plot.slices(result).axes[0].get_xscale()
        'log'
    """
    names = chosen_names(result, names)
    scores = result.scores()
    score = score_scale(scores, result.maximize)
    figure, axes = panels(len(names), columns=3, size=(3.4, 3.0))
    for number, (panel, name) in enumerate(zip(axes, names)):
        scale = hyperparameter_scale(result.space.dimensions[name], values_of(result, name))
        scale.show_on(panel, "x")
        score.show_on(panel, "y")
        _points(panel, _side_by_side(scale).places, score, result)
        if scale.categories is not None and sum(map(len, scale.categories)) > 24:
            panel.set_xticks(panel.get_xticks(), scale.categories, rotation=30, ha="right")
        panel.set(xlabel=name, ylabel=result.monitor if number % 3 == 0 else "")
        panel.grid(alpha=0.3, axis="both" if scale.categories is None else "y")
        if scale.categories is not None:  # the place within a category means nothing: each is one field
            panel.tick_params(axis="x", length=0)
            for place in range(0, len(scale.categories), 2):
                panel.axvspan(place - 0.5, place + 0.5, color="black", alpha=0.06, linewidth=0, zorder=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def contour(result: StudyResult, x: str, y: str) -> Figure:
    """Draw the score over two hyperparameters: the trials, and what lies between them; the better, the darker.

    Between trials the score is interpolated linearly, on logarithmic axes in the logarithm. Where several trials share
    a point it is their mean. Trials on one line have no surface; those that halving evicted, hollow, are no part of it.

    Args:
        result: From `fnn.study`.
        x: Name of the hyperparameter on the horizontal axis.
        y: Name of that on the vertical axis.

    Returns:
        A figure.

    Raises:
        ValueError: when the study has no such hyperparameter, or its values are no numbers.

    Example:
        >>> import fnn, fnn.plot, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.serial(fnn.dropout(hp["rate"]), fnn.dense(1))
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])
        >>> data = jnp.linspace(-1, 1, 32)[:, None]
        >>> space = {"rate": fnn.uniform(0.0, 0.1), "learning_rate": fnn.log_uniform(1e-3, 1e-1)}
        >>> result = fnn.study(
        ...     trial, space, trials=8, data=(data, 2 * data), steps=20, key=jax.random.key(0), progress=False
        ... )
        >>> axes = fnn.plot.contour(result, "learning_rate", "rate").axes[0]
        >>> axes.get_xscale(), axes.get_yscale()
        ('log', 'linear')
    """
    names = chosen_names(result, [x, y])
    for name in names:
        if odd := [value for value in values_of(result, name) if not is_number(value)]:
            raise ValueError(f"{name!r} is chosen from values such as {show(odd[0])}, which lie on no axis; see slices")
    across, up = (hyperparameter_scale(result.space.dimensions[n], values_of(result, n)) for n in names)
    scores = result.scores()
    score = score_scale(scores, result.maximize)
    look = colours(score, result.maximize)
    figure = new_figure(5.6, 4.4)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    across.show_on(axes, "x")
    up.show_on(axes, "y")
    early = result.evicted() & np.isfinite(scores)
    known = np.isfinite(scores) & ~early
    _surface(axes, across, up, score, known, look)
    size = 28 if len(scores) <= CROWD else 8
    marks = {"edgecolors": "white", "linewidths": size / 35, "s": size, "zorder": 3}
    points = axes.scatter(across.places[known], up.places[known], c=scores[known], **marks, **look)
    if early.any():
        hollow = {"facecolors": "none", "edgecolors": "gray", "linewidths": 0.7, "s": size, "zorder": 3}
        axes.scatter(across.places[early], up.places[early], label="evicted, after fewer steps", **hollow)
    without = ~(known | early)
    _without_score(axes, across.places[without], up.places[without])
    if known.any():
        _star(axes, *(scale.places[result.order()[0]] for scale in (across, up)))
        figure.colorbar(points, label=result.monitor)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _surface(axes: Any, across: Scale, up: Scale, score: Scale, known: np.ndarray, look: dict[str, Any]) -> None:
    """The score between the trials, interpolated in fractions of the axes."""
    points, place = np.unique(np.stack([across.fractions(), up.fractions()])[:, known], axis=1, return_inverse=True)
    means = np.bincount(place.ravel(), score.fractions()[known]) / np.bincount(place.ravel())
    if points.shape[1] < 3 or not np.ptp(means) or np.linalg.matrix_rank(points - points[:, :1], tol=1e-6) < 2:
        return
    grid = np.linspace(0, 1, GRID)
    found = LinearTriInterpolator(Triangulation(*points), means)(*np.meshgrid(grid, grid))
    levels = score.at(np.linspace(means.min(), means.max(), LEVELS))
    axes.contourf(across.at(grid), up.at(grid), score.at(found), levels=levels, extend="both", **look)


def _lines(host: Any, scales: Sequence[Scale], scores: np.ndarray, result: StudyResult) -> None:
    """Each trial as a line from axis to axis, the best on top."""
    look = colours(scales[-1], result.maximize)
    heights = np.stack([_side_by_side(scale).fractions() for scale in scales], axis=-1)
    lines = np.stack([np.broadcast_to(np.arange(len(scales)), heights.shape), heights], axis=-1)
    if len(without := lines[~np.isfinite(scores)][:, :-1]):
        red = {"colors": "tab:red", "linestyles": "dashed", "linewidths": 0.7, "alpha": 0.5, "label": "without score"}
        host.add_collection(LineCollection(list(without), **red))
    evicted = result.evicted()
    if len(early := lines[evicted & np.isfinite(scores)][:, :-1]):
        grey = {"colors": "gray", "linewidths": 0.6, "alpha": 0.3, "label": "evicted, after fewer steps"}
        host.add_collection(LineCollection(list(early), **grey))
    whole = np.isfinite(scores) & ~evicted
    worst_first = [trial for trial in reversed(result.order()) if whole[trial]]
    if not worst_first:
        return
    alpha = 0.9 * np.linspace(0, 1, len(worst_first)) ** (FADE if len(worst_first) > CROWD else 0)
    shown = {"linewidths": 1.3, "alpha": alpha, **look}
    host.add_collection(LineCollection(list(lines[worst_first]), array=scores[worst_first], **shown))


def _points(panel: Any, across: np.ndarray, score: Scale, result: StudyResult) -> None:
    scores, (low, high) = score.places, (score.low, score.high)
    worse = low if result.maximize else high
    known, inside, early = np.isfinite(scores), (scores >= low) & (scores <= high), result.evicted()
    marks: dict[str, Any] = {"s": 22, "linewidths": 0, "alpha": 0.8 if len(scores) <= CROWD else 0.4}
    whole = inside & ~early
    panel.scatter(across[whole], scores[whole], color="tab:blue", label="trial", **marks)
    if (ended := inside & early).any():
        panel.scatter(across[ended], scores[ended], color="gray", label="evicted, after fewer steps", **marks)
    marks |= {"marker": "v" if result.maximize else "^", "clip_on": False}
    for label, colour, which in (("far worse", "tab:blue", ~early), ("evicted, far worse", "gray", early)):
        if (far := known & ~inside & which).any():
            panel.scatter(across[far], np.full(far.sum(), worse), color=colour, label=label, **marks)
    _without_score(panel, across[~known], np.full((~known).sum(), worse))
    if known.any():
        best = result.order()[0]
        _star(panel, across[best], scores[best])


def _without_score(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    if len(x):
        look = {"marker": "x", "color": "tab:red", "s": 24, "linewidths": 1, "zorder": 4, "clip_on": False}
        axes.scatter(x, y, label="without score", **look)


def _star(axes: Any, x: float, y: float) -> None:
    look = {"marker": "*", "color": "tab:orange", "edgecolors": "black", "linewidths": 0.7, "s": 150, "zorder": 5}
    axes.scatter([x], [y], label="best", clip_on=False, **look)


def _side_by_side(scale: Scale) -> Scale:
    """The same axis with the trials of a category next to each other, in order of their numbers."""
    if scale.categories is None:
        return scale
    places = scale.places.copy()
    for category in range(len(scale.categories)):
        mine = scale.places == category
        places[mine] += SPREAD * ((np.arange(mine.sum()) + 0.5) / max(mine.sum(), 1) - 0.5)
    return dataclasses.replace(scale, places=places)
