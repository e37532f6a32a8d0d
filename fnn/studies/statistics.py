"""What a few measurements say: intervals, paired differences, importance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnn.studies.space import Dimension

Numbers = Sequence[float] | np.ndarray


class Interval(NamedTuple):
    """A mean and how far it may be off.

    Attributes:
        mean: Of the measurements.
        low: Lower end of the confidence interval.
        high: Its upper end.
        size: How many measurements.
    """

    mean: float
    low: float
    high: float
    size: int


class Comparison(NamedTuple):
    """Two configurations on the same seeds and folds.

    Attributes:
        difference: Mean of the first's value less the second's.
        low: Lower end of the difference's confidence interval.
        high: Its upper end.
        p_value: How probable a difference this large would be if there were none; of Student's paired test.
        size: How many pairs.
    """

    difference: float
    low: float
    high: float
    p_value: float
    size: int


def interval(values: Numbers, confidence: float = 0.95) -> Interval:
    """Student's confidence interval of the mean of independent measurements.

    Runs of one configuration on folds of the same data are not independent: their interval is too narrow.
    """
    values, spread = np.asarray(values, float), _half_width(values, confidence)
    mean = float(np.mean(values))
    return Interval(mean, mean - spread, mean + spread, len(values))


def compare(a: Numbers, b: Numbers, confidence: float = 0.95) -> Comparison:
    """The paired difference of measurements of the same seeds and folds.

    References:
        Student, The probable error of a mean, Biometrika 6, 1908.
    """
    from scipy.special import stdtr  # SciPy comes with JAX, and its import would delay that of fnn

    differences = np.asarray(a, float) - np.asarray(b, float)
    mean, spread = float(np.mean(differences)), _half_width(differences, confidence)
    if len(differences) < 2:
        p_value = float("nan")
    elif not np.ptp(differences):
        p_value = float(mean == 0)
    else:
        t = mean / (np.std(differences, ddof=1) / np.sqrt(len(differences)))
        p_value = float(2 * stdtr(len(differences) - 1, -abs(t)))
    return Comparison(mean, mean - spread, mean + spread, p_value, len(differences))


def importance(
    dimensions: Mapping[str, Dimension], configurations: Sequence[Mapping[str, Any]], scores: Numbers
) -> dict[str, float]:
    """How much of what a forest of trees predicts of the scores is lost when a hyperparameter is shuffled.

    References:
        Breiman, Random forests, Machine Learning 45, 2001.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.inspection import permutation_importance
    except ImportError as error:
        raise ImportError("importance needs scikit-learn: python -m pip install scikit-learn") from error
    known = np.isfinite(scores)
    if known.sum() < 8:
        raise ValueError(f"importance needs at least 8 trials with a finite score, got {known.sum()}")
    names = [name for name in dimensions if len({_place(dimensions[name], row[name]) for row in configurations}) > 1]
    points = np.array([[_place(dimensions[name], row[name]) for name in names] for row in configurations])[known]
    values = np.asarray(scores, float)[known]
    forest = RandomForestRegressor(200, random_state=0).fit(points, values)
    found = permutation_importance(forest, points, values, n_repeats=10, random_state=0)
    drops = np.maximum(np.asarray(found["importances_mean"]), 0)
    shares = dict(zip(names, drops / max(drops.sum(), 1e-30)))
    return dict(sorted(((name, float(shares.get(name, 0.0))) for name in dimensions), key=lambda item: -item[1]))


def _place(dimension: Dimension, value: Any) -> float:
    """A value as a number on an axis."""
    if dimension.kind == "choice":
        return float(
            next(n for n, other in enumerate(dimension.settings["values"]) if other is value or other == value)
        )
    return float(np.log(value)) if dimension.kind == "log_uniform" else float(value)


def _half_width(values: Numbers, confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is between 0 and 1, got {confidence}")
    if len(values) < 2:
        return float("nan")
    from scipy.special import stdtrit

    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(stdtrit(len(values) - 1, 0.5 + confidence / 2) * error)
