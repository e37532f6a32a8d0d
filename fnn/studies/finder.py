"""Which learning rate to take: one short study over many rates."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fnn.core.errors import short_tracebacks
from fnn.studies.configurations import table
from fnn.studies.result import StudyResult
from fnn.studies.runs import OVER
from fnn.studies.study import study

MEASUREMENTS = 20  # of each training; a loss is the mean over the steps since the one before
SETTLED = 0.1  # the part of the steps, the last, whose mean loss is compared
SCATTER = 0.25  # the part, the last, over which the loss at the best rate shows how much it scatters
BACKED_OFF = 3.0  # how far the suggestion stays below the first rate that is too large
LOST = 0.5  # the part of what the best rate gained whose loss makes a rate too large


@dataclass(frozen=True, eq=False)
class LearningRates:
    """How a network trains at many learning rates; made by `find_learning_rate`.

    Attributes:
        rates: The learning rates, ascending, ``(rates,)``.
        steps: The step of each measurement, ``(measurements,)``.
        curves: The mean loss over the steps since the measurement before, ``(rates, measurements)``; NaN where
            training had diverged.
        losses: The mean loss over the last tenth of the steps, ``(rates,)``; infinite where training diverged.
        diverged: Whether a loss was not finite, ``(rates,)``.
        best: The rate with the smallest loss.
        limit: The smallest rate above it that is too large; infinite where none is.
        suggestion: The rate to train with.
    """

    rates: np.ndarray
    steps: np.ndarray
    curves: np.ndarray
    losses: np.ndarray
    diverged: np.ndarray
    best: float
    limit: float
    suggestion: float

    def __str__(self) -> str:
        limit = "none is too large" if np.isinf(self.limit) else f"too large from {self.limit:.2g} on"
        return f"take {self.suggestion:.2g}: the loss is smallest at {self.best:.2g}, {limit}"


@short_tracebacks
def find_learning_rate(
    trial: Callable[[dict[str, Any]], Any],
    *,
    data: Any,
    key: jax.Array,
    batch_size: int = 32,
    steps: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
    rates: int = 48,
    name: str = "learning_rate",
    hp: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> LearningRates:
    """Train for a few steps at each of many learning rates, and suggest one.

    All trainings start from the same parameters and see the same batches, so that they differ by the rate alone. They
    are one program, a `fnn.study`. Compared is the mean loss over the last tenth of the steps, as the median of three
    neighbouring rates.

    Many rates often do as well as the best. Suggested is the smallest of them: the smallest rate whose loss exceeds
    the smallest loss by no more than the standard deviation of that loss over the last quarter of the steps. It is at
    most a third of the limit, the first rate that is too large: at which training diverges, or its loss gives back
    half of what the best rate gained on the smallest one. A longer training may meet higher curvature, where less than
    the limit is too large.

    Args:
        trial: ``trial(hp) -> (net, objective, optimizer)``, the function of a study; ``hp`` holds the rate.
        data: ``(x, target)`` or ``(x, target, weight)``, arrays with a common leading axis of rows.
        key: Decides initial parameters and batches.
        batch_size: Rows of a batch.
        steps: Steps of each training, at least 10.
        low: The smallest rate; small enough that nothing is learned with it.
        high: The largest rate.
        rates: How many, evenly spaced on a logarithmic axis.
        name: Name of the rate in ``hp``.
        hp: The other hyperparameters by name; they stay the same, and are not traced.
        progress: Whether to show remarks and a bar (on a terminal).

    Returns:
        Rates, losses and the suggestion; `fnn.plot.learning_rates` draws them. It warns where the smallest loss is at
        an end of the range.

    Raises:
        ValueError: when an argument is not as described, training diverges at the smallest rate, or the rate makes no
            difference.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax
        >>> def trial(hp):
        ...     net = fnn.dense(1)
        ...     return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])
        >>> x = jax.random.normal(jax.random.key(0), (64, 4))
        >>> found = fnn.find_learning_rate(
        ...     trial, data=(x, x.sum(1, keepdims=True)), key=jax.random.key(1), low=1e-4, high=10.0, rates=16,
        ...     progress=False,
        ... )
        >>> 0.01 < found.suggestion < found.limit, found.curves.shape
        (True, (16, 20))
    """
    fixed = dict(hp or {})
    _check(low, high, rates, steps, name, fixed)
    grid = np.geomspace(low, high, rates)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no trial has a finite loss")  # an error says so below
        result = study(
            _Given(trial),
            table([{name: float(rate), **fixed} for rate in grid], static=tuple(fixed)),
            data=data,
            steps=steps,
            key=key,
            batch_size=batch_size,
            evaluate_every=max(1, steps // MEASUREMENTS),
            minimize="loss",
            at="last",
            keep=0,
            progress=progress,
        )
    return _chosen(grid, result, name)


@dataclass(frozen=True)
class _Given:
    """The user's trial, with an error for a hyperparameter that it was not given; equal for the same trial."""

    trial: Callable[[dict[str, Any]], Any]

    def __call__(self, hp: dict[str, Any]) -> Any:
        return self.trial(_Hyperparameters(hp))


class _Hyperparameters(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        given = ", ".join(map(repr, self))
        raise ValueError(
            f"the trial reads hp[{name!r}], and there is {given}; give hp={{{name!r}: ...}}, or name={name!r} if it is "
            "the learning rate"
        )


def _check(low: float, high: float, rates: int, steps: int, name: str, fixed: dict[str, Any]) -> None:
    if not 0 < low < high < np.inf:
        raise ValueError(f"the rates need positive bounds, the smaller first, got low={low}, high={high}")
    if rates < 3:
        raise ValueError(f"rates must be at least 3, to compare neighbours, got {rates}")
    if steps < 1 / SETTLED:
        raise ValueError(f"steps must be at least {1 / SETTLED:.0f}, to see what a rate does, got {steps}")
    if name in fixed:
        raise ValueError(f"hp holds {name!r}, which is the rate to be found; leave it out, or give another name=")


def _chosen(grid: np.ndarray, result: StudyResult, name: str) -> LearningRates:
    if not all(run.status in OVER for run in result.runs):
        raise KeyboardInterrupt("asked to stop before all rates were tried")
    diverged = np.array([run.status == "diverged" for run in result.runs])
    if diverged[0]:
        where = f"every rate from {grid[0]:.2g} to {grid[-1]:.2g}" if diverged.all() else f"the smallest, {grid[0]:.2g}"
        raise ValueError(f"training diverges at {where}; give a smaller low")
    curves, steps = result.curves("loss"), result.steps()[0]
    if not diverged.any() and np.ptp(curves, axis=0).max() <= 1e-6 * np.abs(curves).max():
        raise ValueError(
            f"all rates from {grid[0]:.2g} to {grid[-1]:.2g} give the same losses; does the optimizer of the trial use "
            f"hp[{name!r}]? If it does, give a larger high"
        )
    losses = np.where(diverged, np.inf, curves[:, steps > (1 - SETTLED) * steps[-1]].mean(axis=1))
    smooth = _medians(losses)
    best = int(np.argmin(smooth))
    for end, side, other in ((0, "smallest", "smaller low"), (len(grid) - 1, "largest", "larger high")):
        if best == end:
            warnings.warn(f"the loss is smallest at the {side} rate, {grid[end]:.2g}; give a {other}", stacklevel=4)
    too_large = np.isinf(losses) | (smooth > smooth[best] + LOST * (smooth[0] - smooth[best]))
    too_large[: best + 1] = False
    limit = float(grid[too_large][0]) if too_large.any() else np.inf
    scatter = np.std(curves[best, steps > (1 - SCATTER) * steps[-1]])
    as_good = grid[smooth <= smooth[best] + scatter][0]
    suggestion = float(min(as_good, limit / BACKED_OFF))
    return LearningRates(grid, steps, curves, losses, diverged, float(grid[best]), limit, suggestion)


def _medians(losses: np.ndarray) -> np.ndarray:
    """Of each loss and its two neighbours; the ends stay as they are."""
    padded = np.concatenate([losses[:1], losses, losses[-1:]])
    return np.median([padded[:-2], padded[1:-1], padded[2:]], axis=0)
