"""Predictions with intervals: how wrong, how wide, and whether they hold what they promise."""

from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

LEVELS = np.arange(1, 10) / 10  # what share of the true values an interval should hold


class Forecast(NamedTuple):
    """An answer for each row: its mean, and the ends of its intervals.

    Attributes:
        mean: ``(rows,)``.
        low: ``(levels, rows)``, for each of ``LEVELS``.
        high: Likewise.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def measure(self, target: np.ndarray) -> dict[str, float]:
        """Error, coverage and width; the interval score is the width plus 20 times what a value lies outside."""
        low, high = self.low[-1], self.high[-1]
        outside = np.maximum(low - target, 0) + np.maximum(target - high, 0)
        return {
            "RMSE": float(np.sqrt(np.mean((self.mean - target) ** 2))),
            "in 50%": float(self.coverage(target)[4]),
            "in 90%": float(self.coverage(target)[8]),
            "width": float(np.mean(high - low)),
            "score": float(np.mean(high - low + 2 / (1 - LEVELS[-1]) * outside)),
        }

    def coverage(self, target: np.ndarray) -> np.ndarray:
        """Which share of the true values is within the intervals of each level."""
        return ((self.low <= target) & (target <= self.high)).mean(1)


def normal(mean: np.ndarray, deviation: np.ndarray | float) -> Forecast:
    """The forecast of a normal distribution."""
    reach = np.asarray(jax.scipy.stats.norm.ppf(0.5 + LEVELS / 2))[:, None] * deviation
    return Forecast(mean, mean - reach, mean + reach)


def draw_calibration(
    forecasts: dict[str, Forecast], name: str, target: np.ndarray, deviation: np.ndarray, unit: str
) -> Figure:
    """Left: do intervals hold what they promise? Right: is the one of that name more wrong where it is less sure?"""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="gray", linestyle=":", label="perfect")
    for label, forecast in forecasts.items():
        left.plot(LEVELS, forecast.coverage(target), marker="o", markersize=4, label=label)
    left.set(xlabel="share that the intervals should hold", ylabel="share of test rows that they hold")
    left.set(xlim=(0, 1), ylim=(0, 1), title="calibration")
    left.legend(frameon=False)

    groups = np.array_split(np.argsort(deviation), min(10, len(target) // 15))
    mean = forecasts[name].mean
    errors = [np.sqrt(np.mean((mean - target)[group] ** 2)) for group in groups]
    sure = [np.sqrt(np.mean(deviation[group] ** 2)) for group in groups]
    largest = 1.1 * max(*errors, *sure)
    right.plot([0, largest], [0, largest], color="gray", linestyle=":")
    right.plot(sure, errors, marker="o", color=f"C{list(forecasts).index(name)}")
    right.set(xlim=(0, largest), ylim=(0, largest), title=f"{name}, {len(groups)} groups of test rows")
    right.set(xlabel=f"predicted deviation ({unit})", ylabel="root mean square error, likewise")
    for panel in (left, right):
        panel.grid(alpha=0.3)
    return figure


def draw_predictions(name: str, forecast: Forecast, target: np.ndarray, unit: str) -> Figure:
    """True and predicted values of about 100 test rows, with the intervals of 90 %."""
    shown = np.argsort(forecast.mean)[:: max(1, len(target) // 80)]
    order = np.arange(len(shown))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    low, high = forecast.low[-1, shown], forecast.high[-1, shown]
    axes.vlines(order, low, high, color="C0", alpha=0.35, linewidth=4, label="interval of 90 %")
    axes.plot(order, forecast.mean[shown], color="C0", label="prediction")
    inside = (low <= target[shown]) & (target[shown] <= high)
    axes.scatter(order[inside], target[shown][inside], color="black", s=12, zorder=3, label="true value inside")
    axes.scatter(order[~inside], target[shown][~inside], color="C3", s=16, zorder=3, label="true value outside")
    axes.set(xlabel="test rows, in the order of their predictions", ylabel=unit)
    axes.set_title(f"{name}, {len(shown)} test rows")
    axes.legend(frameon=False, loc="upper left")
    axes.grid(alpha=0.3)
    return figure
