"""How a network trains at many learning rates."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fnn.plot.panels import panels
from fnn.plot.scales import Scale, ends
from fnn.studies.finder import LearningRates


def learning_rates(found: LearningRates) -> Figure:
    """Draw what `fnn.find_learning_rate` found: the loss over the rate, and the curves of all rates.

    The line is the suggestion, what is too large is shaded. A cross at the upper end is a rate that diverged, a
    triangle there a loss above all that the smallest rate has, which is where the axes end.

    Args:
        found: From `fnn.find_learning_rate`.

    Returns:
        A figure of two panels and a colour bar.

    Example:
        >>> import fnn, fnn.plot, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.dense(1)
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])
        >>> x = jnp.linspace(-1, 1, 32)[:, None]
        >>> found = fnn.find_learning_rate(
        ...     trial, data=(x, 2 * x), key=jax.random.key(0), low=1e-4, high=100.0, rates=16, progress=False
        ... )
        >>> [axes.get_xlabel() for axes in fnn.plot.learning_rates(found).axes[:2]]
        ['learning rate', 'step']
    """
    figure, (over_rate, over_steps) = panels(2, columns=2, size=(4.6, 3.6))
    scale = _losses(found)
    for panel in (over_rate, over_steps):
        scale.show_on(panel, "y")
        panel.grid(alpha=0.3)
    inside = found.losses <= scale.high
    over_rate.plot(found.rates[inside], found.losses[inside], marker="o", markersize=3.5, linewidth=1.2)
    for mine, marker, label in ((found.diverged, "x", "diverged"), (~inside & ~found.diverged, "^", "off the axis")):
        if mine.any():
            look = {"marker": marker, "color": "tab:red", "s": 24, "linewidths": 1, "clip_on": False, "zorder": 4}
            over_rate.scatter(found.rates[mine], np.full(mine.sum(), scale.high), label=label, **look)
    if np.isfinite(found.limit):
        over_rate.axvspan(
            found.limit, found.rates[-1] * 1e3, color="tab:red", alpha=0.1, linewidth=0, label="too large"
        )
    over_rate.axvline(found.suggestion, color="tab:orange", linewidth=2, label=f"suggestion {found.suggestion:.2g}")
    step = found.rates[1] / found.rates[0]
    over_rate.set(xscale="log", xlim=(found.rates[0] / step, found.rates[-1] * step))
    over_rate.set(xlabel="learning rate", ylabel=f"loss at step {found.steps[-1]:.0f}")
    over_rate.legend(frameon=False, fontsize=8)
    norm = LogNorm(found.rates[0], found.rates[-1])
    colours = ScalarMappable(norm, "viridis")
    for rate, curve in zip(found.rates, found.curves):
        over_steps.plot(found.steps, curve, color=colours.to_rgba(rate), linewidth=1)
    over_steps.set(xlabel="step", ylabel="loss")
    figure.colorbar(colours, ax=over_steps, label="learning rate")
    return figure


def _losses(found: LearningRates) -> Scale:
    """The axis of losses, from the smallest of all to the largest of the smallest rate."""
    largest = np.nanmax(found.curves[0])
    shown = found.curves[found.curves <= largest]
    is_log = bool(shown.min() > 0 and shown.max() > 10 * shown.min())
    return Scale(found.losses, *ends(shown, is_log), is_log=is_log)
