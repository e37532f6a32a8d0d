"""Metrics of a whole data set, exact however it is cut into batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.dtypes import widen
from fnn.ops.targets import expand, masked, ratio


class Metric(NamedTuple):
    """A metric as four pure functions, exact over a data set however it is cut into batches.

    Called, ``metric(predictions, targets, weight=None)``, it gives the value of arrays that are there as a whole.

    ``stats`` is a pytree of arrays. ``merge`` and ``compute`` do their arithmetic in NumPy where all of it is NumPy
    (in float64, if it is) and in JAX otherwise. An example of weight 0 does not count, whatever it holds.

    Attributes:
        init: ``init() -> stats`` of no data.
        update: ``update(stats, y, target, weight) -> stats`` with one more batch; ``weight`` is ``(batch,)``, has more
            of the leading axes of the targets, or is None.
        merge: ``merge(stats, stats) -> stats`` of both.
        compute: ``compute(stats) -> value``, NaN where the data does not say.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.auroc()
        >>> y, target = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
        >>> float(metric(y, target))
        0.75

        The same in two batches:

        >>> stats = metric.update(metric.init(), y[:3], target[:3], None)
        >>> stats = metric.merge(stats, metric.update(metric.init(), y[3:], target[3:], None))
        >>> float(metric.compute(stats))
        0.75
    """

    init: Callable[[], Any]
    update: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    compute: Callable[[Any], Any]

    def __call__(self, predictions: Any, targets: Any, weight: Any = None) -> Any:
        """The value of these predictions and targets: `compute` of one `update`."""
        return self.compute(self.update(self.init(), predictions, targets, weight))


def mean(metric: Callable[[Any, Any], jax.Array]) -> Metric:
    """The weighted mean of a metric per example.

    Args:
        metric: ``metric(y, target)``, one value per example or per target.

    Returns:
        A streaming metric.

        - stats: ``total ()``, the weighted sum of the values; ``weight ()``, the sum of the weights

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> accuracy = fnn.mean(fnn.accuracy)
        >>> y, target, weight = jnp.array([1.0, -1.0, 2.0]), jnp.array([1, 1, 1]), jnp.array([1.0, 1.0, 0.0])
        >>> float(accuracy(y, target, weight))
        0.5
    """

    def measure(y: Any, target: Any, weight: Any) -> dict[str, jax.Array]:
        values = widen(metric(y, target))
        weight = expand(weight, values.shape)
        return {"total": jnp.sum(masked(values, weight) * weight), "weight": jnp.sum(weight)}

    empty = {"total": np.zeros((), np.float32), "weight": np.zeros((), np.float32)}
    return streaming(empty, measure, add, lambda stats: ratio(stats["total"], stats["weight"], np.nan))


def streaming(empty: Any, measure: Any, merge: Any, compute: Any) -> Metric:
    """A Metric from the statistics of no data, those of one batch, and how to merge and read them."""

    def update(stats: Any, y: Any, target: Any, weight: Any = None) -> Any:
        return merge(stats, measure(y, target, weight))

    return Metric(lambda: jax.tree.map(np.copy, empty), update, merge, compute)


def add(a: Any, b: Any) -> Any:
    return jax.tree.map(lambda a, b: a + b, a, b)
