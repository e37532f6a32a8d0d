"""How the trainings of a study went."""

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from fnn.plot.panels import new_figure
from fnn.plot.scales import Scale, ends
from fnn.studies.result import StudyResult

RATIO = 20.0  # of large to small values, from which on the axis of falling ones is logarithmic
FENCE = 3.0  # how many quartile distances beyond the quartiles a curve is still shown


def study_curves(result: StudyResult, name: str | None = None, *, top: int = 3) -> Figure:
    """Draw the learning curves of all runs of a study, the best trials in colour.

    A coloured line is the mean over a trial's seeds and folds, its band goes from the lowest run to the highest; a run
    that ended earlier stays at its last value. Every other run is a grey line, and a cross is where one diverged.
    Curves far outside the others are cut off; the axis is logarithmic where values fall far.

    Args:
        result: From `fnn.study`.
        name: What is drawn, such as ``"validation/accuracy"``. None: what the study compared.
        top: How many trials are in colour, by the study's score.

    Returns:
        A figure.

    Raises:
        ValueError: when there is no such measurement, it is an array, or ``top`` is negative.

    Example:
        >>> import fnn, fnn.plot, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.dense(1)
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> result = fnn.study(
        ...     trial, [{"learning_rate": 0.01}, {"learning_rate": 0.1}], data=(x, 2 * x), steps=20, seeds=2,
        ...     key=jax.random.key(0), progress=False,
        ... )
        >>> figure = fnn.plot.study_curves(result, "loss", top=1)
        >>> [text.get_text().split(":")[0] for text in figure.legends[0].get_texts()]
        ['trial 1', 'the others']
    """
    if top < 0:
        raise ValueError(f"top is a number of trials, got {top}")
    name = result.monitor if name is None else name
    steps, curves = result.steps(), result.curves(name)
    if curves.ndim != 2:
        raise ValueError(f"{name!r} is an array {curves.shape[2:]} at each step, which is no curve; name a number")
    curves = np.where(np.isfinite(curves), curves, np.nan)
    scores = result.scores()
    best = [trial for trial in result.order()[:top] if np.isfinite(scores[trial])]
    trials = np.array([run.id.trial for run in result.runs])
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for place, trial in enumerate(best):
        mine = trials == trial
        _mean_and_band(axes, steps[mine], curves[mine], f"trial {trial}: {scores[trial]:.4g}", f"C{place}", len(best))
    others = ~np.isin(trials, best)
    _grey(axes, steps[others], curves[others], "the others" if best else "all runs")
    diverged = np.array([run.status == "diverged" for run in result.runs])
    _fit(axes, steps, curves, ~others if best else others)
    _crosses(axes, steps[diverged], curves[diverged])
    axes.set(xlabel="step", ylabel=name)
    axes.grid(alpha=0.3)
    banded = best and len(result.runs) > len(result.configurations)
    title = f"by {result.monitor}" + (", bands from the lowest run to the highest" if banded else "")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title=title)
    return figure


def importance(result: StudyResult) -> Figure:
    """Draw the share of each hyperparameter in what can be said of the scores, the largest on top.

    Args:
        result: From `fnn.study`, with at least 8 trials that have a score; needs scikit-learn.

    Returns:
        A figure.

    Raises:
        ValueError: when fewer trials have one.

    Example:
        >>> import fnn, fnn.plot, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.serial(fnn.dropout(hp["rate"]), fnn.dense(1))
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> space = {"rate": fnn.uniform(0.0, 0.1), "learning_rate": fnn.log_uniform(1e-3, 1e-1)}
        >>> result = fnn.study(
        ...     trial, space, trials=8, data=(x, 2 * x), steps=20, key=jax.random.key(0), progress=False
        ... )
        >>> [label.get_text() for label in fnn.plot.importance(result).axes[0].get_yticklabels()]
        ['learning_rate', 'rate']
    """
    shares = result.importance()
    figure = new_figure(5.5, 1.0 + 0.35 * len(shares))
    axes = figure.add_subplot()
    bars = axes.barh(range(len(shares)), list(shares.values()), height=0.6)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()], padding=3)
    axes.set_yticks(range(len(shares)), list(shares))
    axes.invert_yaxis()
    axes.set(xlabel=f"share in {result.monitor}", xlim=(0, 1.1 * max(shares.values()) or 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _mean_and_band(axes: Any, steps: np.ndarray, curves: np.ndarray, label: str, colour: str, count: int) -> None:
    """A trial's mean over its runs; one that ended stays at its last value."""
    grid = np.unique(steps[np.isfinite(steps)])
    held = np.array([_held(*pair, grid) for pair in zip(steps, curves)])
    known = np.isfinite(held).all(axis=0)
    grid, held = grid[known], held[:, known]
    marker = "o" if len(grid) <= 12 else None
    axes.plot(grid, held.mean(axis=0), color=colour, linewidth=2, marker=marker, markersize=3.5, label=label, zorder=4)
    if len(held) > 1:
        band = {"alpha": 0.3 if count <= 3 else 0.15, "linewidth": 0, "zorder": 3}
        axes.fill_between(grid, held.min(axis=0), held.max(axis=0), color=colour, **band)


def _held(steps: np.ndarray, curve: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """A curve at other steps: its newest value, NaN before the first."""
    known = np.isfinite(steps) & np.isfinite(curve)
    newest = np.searchsorted(steps[known], grid, side="right") - 1
    return np.where(newest < 0, np.nan, np.append(curve[known], np.nan)[newest])


def _grey(axes: Any, steps: np.ndarray, curves: np.ndarray, label: str) -> None:
    lines = [np.stack(pair, axis=-1)[np.isfinite(pair[1])] for pair in zip(steps, curves)]
    lines = [line for line in lines if len(line)]
    if not lines:
        return
    alpha = max(0.12, min(0.8, 12 / len(lines)))
    axes.add_collection(LineCollection(lines, colors="gray", linewidths=0.8, alpha=alpha, zorder=2))
    axes.plot([], [], color="gray", linewidth=0.8, label=label)
    if alone := [line[0] for line in lines if len(line) == 1]:
        axes.scatter(*np.transpose(alone), s=8, color="gray", alpha=alpha, zorder=2)


def _crosses(axes: Any, steps: np.ndarray, curves: np.ndarray) -> None:
    """Where runs diverged: at the last value that is finite, or at the end of the axis."""
    known = [np.flatnonzero(np.isfinite(curve)) for curve in curves]
    last = [(steps[row, found[-1]], curves[row, found[-1]]) for row, found in enumerate(known) if len(found)]
    if last:
        look = {"marker": "x", "color": "tab:red", "s": 22, "linewidths": 1, "zorder": 5, "clip_on": False}
        x, y = np.transpose(last)
        axes.scatter(x, np.clip(y, *axes.get_ylim()), label="diverged", **look)


def _fit(axes: Any, steps: np.ndarray, curves: np.ndarray, best: np.ndarray) -> None:
    """Limits of the axes: all of the best, and of the others what is not far outside."""
    values, kept = (part[np.isfinite(part)] for part in (curves, curves[best]))
    if not len(values):
        return
    lower, upper = np.quantile(values, [0.25, 0.75])
    distance = FENCE * (upper - lower) or np.inf
    inside = np.concatenate([values[np.abs(values - np.clip(values, lower, upper)) <= distance], kept])
    finite = [curve[np.isfinite(curve)] for curve in curves[best]]
    falls = np.median([curve[-1] - curve[0] for curve in finite if len(curve)] or [0.0]) < 0
    is_log = bool(falls and inside.min() > 0 and inside.max() > RATIO * inside.min())
    Scale(inside, *ends(inside, is_log), is_log=is_log).show_on(axes, "y")
    Scale(steps, *ends(steps[np.isfinite(steps)], False)).show_on(axes, "x")
