"""Curves over the epochs of a training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fnn.plot.panels import panels


def learning_curves(history: Mapping[str, Any]) -> Figure:
    """Draw every metric over the epochs, training beside validation.

    Args:
        history: From `fnn.fit`: by name one value for each epoch. ``"validation/loss"`` is drawn beside ``"loss"``.

    Returns:
        A figure with one panel for each metric.

    Raises:
        ValueError: when the history is empty.

    Example:
        >>> import fnn.plot
        >>> figure = fnn.plot.learning_curves({"loss": [1.0, 0.5], "validation/loss": [1.1, 0.8]})
        >>> [axes.get_title() for axes in figure.axes]
        ['loss']
    """
    curves = {name: np.asarray(values) for name, values in history.items() if name != "step" and np.ndim(values) == 1}
    if not curves:
        raise ValueError("the history is empty: there is nothing to draw")
    titles = list(dict.fromkeys(name.removeprefix("validation/") for name in curves))
    figure, axes = panels(len(titles), columns=3, size=(4.2, 3.2))
    for panel, name in zip(axes, titles):
        _curves(panel, curves, name)
        panel.set(title=name, xlabel="epoch")
        panel.legend(frameon=False)
    return figure


def comparison(histories: Mapping[str, Mapping[str, Any]], metric: str = "loss") -> Figure:
    """Draw one metric of several runs side by side, on common axes.

    Args:
        histories: By name of the run what `fnn.fit` returned.
        metric: Name of the metric; ``"validation/..."`` is drawn beside it where there is one.

    Returns:
        A figure with one panel for each run.

    Raises:
        ValueError: when there is no run, or a run has no such metric.

    Example:
        >>> import fnn.plot
        >>> figure = fnn.plot.comparison({"small": {"loss": [1.0, 0.9]}, "large": {"loss": [1.0, 0.1]}})
        >>> [axes.get_title() for axes in figure.axes]
        ['small', 'large']
    """
    if not histories:
        raise ValueError("there is no run to draw; give at least one history")
    for name, history in histories.items():
        if metric not in history:
            raise ValueError(f"the run {name!r} has no metric {metric!r}; it has {', '.join(history) or 'none'}")
    figure, axes = panels(len(histories), columns=3, size=(3.6, 2.8))
    for panel, (name, history) in zip(axes, histories.items()):
        if panel is not axes[0]:
            panel.sharex(axes[0])
            panel.sharey(axes[0])
        _curves(panel, history, metric)
        panel.set(title=name, xlabel="epoch", ylabel=metric)
    axes[0].legend(frameon=False)
    return figure


def _curves(panel: Any, history: Mapping[str, Any], metric: str) -> None:
    """One metric over the epochs, training beside validation."""
    for label, key in (("training", metric), ("validation", f"validation/{metric}")):
        if key in history:
            values = np.asarray(history[key])
            epochs = np.arange(1, len(values) + 1)
            panel.plot(epochs, values, label=label, marker="o" if len(epochs) <= 12 else None, markersize=3.5)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.grid(alpha=0.3)
