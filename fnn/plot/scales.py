"""Where hyperparameters and scores stand on an axis, and what colour a score has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from fnn.studies.result import StudyResult
from fnn.studies.space import Dimension, is_number, show

CATEGORIES = 10  # numbers to choose from; more of them are drawn as a continuous axis
DECADES = 2.0  # that positive numbers to choose from span at least, for a logarithmic axis
LETTERS = 16  # of a category's name
FENCE = 3.0  # how far a score may be worse than the median, as a multiple of the best's distance, before it is cut off


@dataclass(frozen=True)
class Scale:
    """An axis and where things stand on it.

    Attributes:
        places: Of each value, ``(values,)``.
        low: Lower end of the axis.
        high: Its upper end.
        is_log: Whether it is logarithmic.
        categories: Names of the places 0, 1, ... where values are no continuous numbers.
        whole: Whether ticks are whole numbers.
    """

    places: np.ndarray
    low: float
    high: float
    is_log: bool = False
    categories: tuple[str, ...] | None = None
    whole: bool = False

    def fractions(self) -> np.ndarray:
        """How far along the axis each value is, between 0 and 1."""
        warp = np.log if self.is_log else np.asarray
        places = np.clip(self.places, self.low, self.high)
        return (warp(places) - warp(self.low)) / (warp(self.high) - warp(self.low))

    def at(self, fractions: Any) -> Any:
        """What stands so far along the axis."""
        if self.is_log:
            return self.low * (self.high / self.low) ** fractions
        return self.low + (self.high - self.low) * fractions

    def show_on(self, axes: Any, side: str) -> None:
        """Give the ``"x"`` or ``"y"`` axis this scale, with its ends and ticks."""
        axis = {"x": axes.xaxis, "y": axes.yaxis}[side]
        axes.set(**{f"{side}scale": "log" if self.is_log else "linear", f"{side}lim": (self.low, self.high)})
        if self.categories is not None:
            axis.set_ticks(range(len(self.categories)), self.categories)
            axis.set_minor_locator(NullLocator())
        elif self.whole:
            axis.set_major_locator(MaxNLocator(integer=True))
        elif self.is_log and self.high < 100 * self.low:  # powers of ten alone would be one tick or two
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())


def hyperparameter_scale(dimension: Dimension, values: Sequence[Any]) -> Scale:
    """The axis of a hyperparameter: logarithmic where it is drawn so, with names where it is chosen from few values."""
    options = dimension.settings.get("values", values)
    numbers = all(is_number(value) and not isinstance(value, bool) for value in options)
    if not numbers or (dimension.kind == "choice" and len(options) <= CATEGORIES):
        options = sorted(set(options)) if numbers else list(options)
        places = np.array([_place(value, options) for value in values], float)
        return Scale(places, -0.5, len(options) - 0.5, categories=tuple(map(_name, options)))
    places = np.array(values, float)
    spans = places.min() > 0 and np.log10(places.max() / places.min()) >= DECADES
    is_log = dimension.kind == "log_uniform" or (dimension.kind == "choice" and bool(spans))
    return Scale(places, *ends(places, is_log), is_log=is_log, whole=dimension.kind == "integer")


def score_scale(scores: np.ndarray, maximize: bool) -> Scale:
    """The axis of scores: from the best to what is not much worse than the median; others stand at its end."""
    found = scores[np.isfinite(scores)]
    if not len(found):
        return Scale(scores, 0.0, 1.0)
    is_log = not maximize and found.min() > 0 and np.median(found) > 10 * found.min()
    warped = np.log(found) if is_log else found
    best, median = (warped.max() if maximize else warped.min()), np.median(warped)
    if best != median:
        fence = median + FENCE * (median - best)
        warped = np.maximum(warped, fence) if maximize else np.minimum(warped, fence)
    is_log = bool(is_log)
    return Scale(scores, *ends(np.exp(warped) if is_log else warped, is_log), is_log=is_log)


def ends(places: np.ndarray, is_log: bool) -> tuple[float, float]:
    """Ends of an axis, a little beyond the places."""
    warped = np.log(places) if is_log else places
    low, high = float(warped.min()), float(warped.max())
    margin = 0.05 * (high - low) or (0.5 if is_log else 0.05 * abs(high) or 0.5)
    low, high = low - margin, high + margin
    return (float(np.exp(low)), float(np.exp(high))) if is_log else (low, high)


def colours(scale: Scale, maximize: bool) -> dict[str, Any]:
    """Arguments for matplotlib that make a good score dark."""
    shown = np.clip(scale.places[np.isfinite(scale.places)], scale.low, scale.high)
    low, high = (shown.min(), shown.max()) if len(shown) and np.ptp(shown) else (scale.low, scale.high)
    norm = (LogNorm if scale.is_log else Normalize)(low, high, clip=True)
    return {"norm": norm, "cmap": "viridis_r" if maximize else "viridis"}


def chosen_names(result: StudyResult, names: Sequence[str] | None) -> list[str]:
    """Names of the hyperparameters to draw: those asked for, or all that vary."""
    there = list(result.space.dimensions)
    if not there:
        raise ValueError("the study has no hyperparameter to draw; give fnn.study a space")
    if unknown := [name for name in names or () if name not in there]:
        raise ValueError(f"{unknown[0]!r} is no hyperparameter of the study; there is {', '.join(there)}")
    if names is not None:
        return list(names)
    return [name for name in there if _varies(name, result.configurations)] or there


def values_of(result: StudyResult, name: str) -> list[Any]:
    """The value of a hyperparameter in each trial."""
    return [configuration[name] for configuration in result.configurations]


def _varies(name: str, configurations: Sequence[Mapping[str, Any]]) -> bool:
    first = configurations[0][name]
    return any(row[name] is not first and row[name] != first for row in configurations)


def _place(value: Any, options: Sequence[Any]) -> int:
    return next(place for place, option in enumerate(options) if option is value or option == value)


def _name(value: Any) -> str:
    name = value if isinstance(value, str) else show(value)
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
