"""Scores of a regression over a data set."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.metrics.streaming import Metric, streaming
from fnn.ops.dtypes import widen
from fnn.ops.targets import difference, expand, masked, namespace, ratio

Array = jax.Array | np.ndarray


def r2() -> Metric:
    """The coefficient of determination: the part of the target's variance that is explained.

    Several outputs are scored one by one and averaged, as scikit-learn's ``r2_score`` does. An output whose target
    never varies has 1 if it is predicted exactly and 0 otherwise. Sums of squares are taken around means and merged by
    the method of Chan, Golub and LeVeque, so a large mean costs no digits.

    Returns:
        A streaming metric for predictions and targets of one shape, ``(batch, *outputs)``.

        - stats: ``weight ()``; ``origin (*outputs)``, one of the targets; ``mean (*outputs)``, their mean less that;
          ``spread (*outputs)``, their sum of squares around the mean; ``residual (*outputs)``, that of the errors

    Raises:
        ValueError: from ``update``, when the shapes differ or ``weight`` is not ``(batch,)``.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.r2()
        >>> y, target = jnp.array([2.5, 0.0, 2.0, 8.0]), jnp.array([3.0, -0.5, 2.0, 7.0])
        >>> round(float(metric(y, target)), 4)
        0.9486

    References:
        Chan, Golub and LeVeque, Algorithms for computing the sample variance: analysis and recommendations, The
        American Statistician 37, 1983.
    """

    def measure(y: Any, target: Any, weight: Any) -> dict[str, jax.Array]:
        error, target = difference(y, target), widen(target)
        weight = expand(weight, target.shape[:1])
        total = jnp.sum(weight)
        # An example that counts, since padding may hold NaN; 0 where none does.
        origin = jnp.zeros(target.shape[1:], target.dtype)
        origin = jnp.where(total == 0, 0, target[jnp.argmax(weight)]) if len(target) else origin
        across = weight.reshape(-1, *(1,) * (target.ndim - 1))
        sums = lambda values: jnp.sum(across * masked(values, across), axis=0)
        mean = sums(target - origin) / jnp.where(total == 0, 1, total)
        spread = sums(jnp.square(target - origin - mean))
        return {"weight": total, "origin": origin, "mean": mean, "spread": spread, "residual": sums(jnp.square(error))}

    def merge(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
        xp = namespace(a, b)
        weight = a["weight"] + b["weight"]
        share = ratio(b["weight"], weight)
        origin = xp.where(a["weight"] == 0, b["origin"], a["origin"])
        apart = b["origin"] - a["origin"] + (b["mean"] - a["mean"])
        apart = xp.where((a["weight"] == 0) | (b["weight"] == 0), 0, apart)
        return {
            "weight": weight,
            "origin": origin,
            "mean": xp.where(a["weight"] == 0, b["mean"], a["mean"] + apart * share),
            "spread": a["spread"] + b["spread"] + xp.square(apart) * a["weight"] * share,
            "residual": a["residual"] + b["residual"],
        }

    def compute(stats: dict[str, Array]) -> Array:
        xp = namespace(stats)
        constant = xp.where(stats["residual"] == 0, 0, 1)
        score = xp.mean(1 - ratio(stats["residual"], stats["spread"], constant))
        return xp.where(stats["weight"] == 0, np.nan, score)

    names = ("weight", "origin", "mean", "spread", "residual")
    return streaming({name: np.zeros((), np.float32) for name in names}, measure, merge, compute)
