"""What is measured: values per example, and streaming metrics that are exact over a data set.

A metric per example is a function ``metric(y, target)``, as the losses of `optax.losses` are; its weighted mean is
reported. What is no mean over examples, such as the area under a curve, is a `Metric`: statistics of each batch, which
are merged.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.checks import check_positive_int
from fnn.ops.targets import (
    check_integer,
    difference,
    expand,
    masked,
    mean_over_features,
    namespace,
    ratio,
    to_classes,
    widen,
    with_columns,
)

Array = jax.Array | np.ndarray


def accuracy(y: Any, target: Any) -> jax.Array:
    """Whether the most probable class is the right one.

    One logit per target, in a last axis of size 1 or none at all, means two classes: 1 is predicted where the logit is
    positive. Of classes with equal logits the first is predicted.

    Args:
        y: Logits, ``(*shape, classes)``; or for two classes ``(*shape, 1)`` or ``(batch,)``. Not probabilities.
        target: Integer classes ``(*shape)``; for two classes 0 and 1 in any dtype. A class that does not exist, such
            as -1, is never right: give it weight 0.

    Returns:
        float32 ``(*shape)``, 1 where right and 0 where wrong.

    Raises:
        ValueError: when the shapes do not fit, or leave open whether the target is one-hot or holds many labels.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.accuracy(jnp.array([[0.1, 2.0], [0.3, -1.0]]), jnp.array([1, 1])).tolist()
        [1.0, 0.0]
        >>> fnn.accuracy(jnp.array([[2.0], [-1.0]]), jnp.array([1, 1])).tolist()
        [1.0, 0.0]
    """
    prediction, target = to_classes(*with_columns(y, target))
    return (prediction == target).astype(jnp.float32)


def top_k(k: int) -> Callable[[Any, Any], jax.Array]:
    """Whether the right class is among the k most probable.

    Args:
        k: How many guesses. Among equal logits the first classes are guessed first.

    Returns:
        A metric per example: ``metric(y, target)`` takes logits ``(*shape, classes)`` and integer classes ``(*shape)``
        and gives float32 ``(*shape)``, 1 where right and 0 where wrong.

    Raises:
        ValueError: from the metric, when the shapes do not fit or there are fewer than k classes.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.top_k(2)(jnp.array([[0.1, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([2, 2])).tolist()
        [1.0, 0.0]
    """
    check_positive_int("k", k)

    def metric(y: Any, target: Any) -> jax.Array:
        y, target = with_columns(y, target)
        if y.shape[-1] < k:
            raise ValueError(f"y has {y.shape[-1]} classes, wanted at least k = {k}")
        check_integer(target)
        return jnp.any(jax.lax.top_k(y, k)[1] == target[..., None], axis=-1).astype(jnp.float32)

    return metric


def squared_error(y: Any, target: Any) -> jax.Array:
    """The squared error of each example, averaged over its features.

    Args:
        y: Predictions, ``(batch, *features)``.
        target: The truth, in exactly this shape.

    Returns:
        float32 ``(batch,)``.

    Raises:
        ValueError: when the shapes differ. ``(32, 1)`` and ``(32,)`` would broadcast to 32 x 32 errors.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.squared_error(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0], [3.0, 4.0]])).tolist()
        [2.0, 0.0]
    """
    return mean_over_features(jnp.square(difference(y, target)))


def absolute_error(y: Any, target: Any) -> jax.Array:
    """The absolute error of each example, averaged over its features.

    Args:
        y: Predictions, ``(batch, *features)``.
        target: The truth, in exactly this shape.

    Returns:
        float32 ``(batch,)``.

    Raises:
        ValueError: when the shapes differ.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> fnn.absolute_error(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0], [3.0, 4.0]])).tolist()
        [1.0, 0.0]
    """
    return mean_over_features(jnp.abs(difference(y, target)))


class Metric(NamedTuple):
    """A metric as four pure functions, exact over a data set however it is cut into batches.

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
        >>> stats = metric.update(metric.init(), y[:3], target[:3], None)
        >>> stats = metric.merge(stats, metric.update(metric.init(), y[3:], target[3:], None))
        >>> float(metric.compute(stats))
        0.75
    """

    init: Callable[[], Any]
    update: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    compute: Callable[[Any], Any]


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
        >>> float(accuracy.compute(accuracy.update(accuracy.init(), y, target, weight)))
        0.5
    """

    def measure(y: Any, target: Any, weight: Any) -> dict[str, jax.Array]:
        values = widen(metric(y, target))
        weight = expand(weight, values.shape)
        return {"total": jnp.sum(masked(values, weight) * weight), "weight": jnp.sum(weight)}

    empty = {"total": np.zeros((), np.float32), "weight": np.zeros((), np.float32)}
    return _streaming(empty, measure, _add, lambda stats: ratio(stats["total"], stats["weight"], np.nan))


def confusion_matrix(classes: int) -> Metric:
    """How often each class was taken for each other class.

    Args:
        classes: How many classes there are; 2 also for a single logit.

    Returns:
        A streaming metric for logits and targets as `accuracy` takes them. A target that is no class is left out.

        - stats: ``(classes, classes)``, sums of weights; rows are targets, columns are predictions

    Raises:
        ValueError: from ``update``, when the shapes do not fit.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.confusion_matrix(2)
        >>> y, target = jnp.array([3.0, -1.0, 2.0]), jnp.array([1, 1, 1])
        >>> metric.compute(metric.update(metric.init(), y, target, None)).tolist()
        [[0.0, 0.0], [1.0, 2.0]]
    """
    _check_classes(classes)

    def measure(y: Any, target: Any, weight: Any) -> jax.Array:
        prediction, target, weight = _weighted_classes(y, target, weight, classes)
        return jnp.zeros((classes, classes), weight.dtype).at[target, prediction].add(weight)

    return _streaming(np.zeros((classes, classes), np.float32), measure, _add, lambda stats: stats)


def precision(classes: int, average: str | None = "macro") -> Metric:
    """The part of the predictions of a class that is right.

    Equal to scikit-learn's ``precision_score`` with ``labels=range(classes)`` and ``zero_division=0``: a class that is
    never predicted has precision 0.

    Args:
        classes: How many classes there are; 2 also for a single logit.
        average: ``"macro"`` is the mean over the classes, ``"micro"`` counts over all classes at once (which is the
            accuracy), None gives each class its own, ``(classes,)``; item 1 of it is the precision of the positive
            class of two.

    Returns:
        A streaming metric for logits and targets as `accuracy` takes them. A target that is no class is left out.

        - stats: ``hits``, ``predicted`` and ``actual``, each ``(classes,)``: sums of weights by class

    Raises:
        ValueError: when ``average`` is none of these; from ``update``, when the shapes do not fit.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.precision(2, average=None)
        >>> y, target = jnp.array([3.0, -1.0, 2.0, 1.0]), jnp.array([1, 1, 1, 0])
        >>> [round(value, 3) for value in metric.compute(metric.update(metric.init(), y, target, None)).tolist()]
        [0.0, 0.667]

    References:
        Van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    return _by_class(classes, average, lambda hits, predicted, actual: ratio(hits, predicted))


def recall(classes: int, average: str | None = "macro") -> Metric:
    """The part of a class that is found.

    Equal to scikit-learn's ``recall_score`` with ``labels=range(classes)`` and ``zero_division=0``: a class without
    examples has recall 0.

    Args:
        classes: How many classes there are; 2 also for a single logit.
        average: ``"macro"``, ``"micro"`` or None, as for `precision`.

    Returns:
        A streaming metric with the inputs, statistics and errors of `precision`.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.recall(2)
        >>> y, target = jnp.array([3.0, -1.0, -2.0]), jnp.array([1, 1, 0])
        >>> float(metric.compute(metric.update(metric.init(), y, target, None)))
        0.75
    """
    return _by_class(classes, average, lambda hits, predicted, actual: ratio(hits, actual))


def f1(classes: int, average: str | None = "macro") -> Metric:
    """The harmonic mean of precision and recall.

    Equal to scikit-learn's ``f1_score`` with ``labels=range(classes)`` and ``zero_division=0``: a class that is neither
    found nor there has 0.

    Args:
        classes: How many classes there are; 2 also for a single logit.
        average: ``"macro"``, ``"micro"`` or None, as for `precision`.

    Returns:
        A streaming metric with the inputs, statistics and errors of `precision`.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.f1(3)
        >>> y, target = jnp.eye(3), jnp.array([0, 1, 1])
        >>> round(float(metric.compute(metric.update(metric.init(), y, target, None))), 3)
        0.556

    References:
        Van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    return _by_class(classes, average, lambda hits, predicted, actual: ratio(2 * hits, predicted + actual))


def auroc() -> Metric:
    """The area under the ROC curve: how probably a positive example scores higher than a negative one.

    Exact, ties and weights included: it keeps every score, so its statistics grow with the data. NaN where one of the
    classes has no example.

    Returns:
        A streaming metric for two classes: scores ``(batch,)`` or ``(batch, 1)``, or logits ``(batch, 2)``, of which
        the difference is the score; targets 0 and 1, ``(batch,)``.

        - stats: ``score``, ``target`` and ``weight``, each ``(examples so far,)``

    Raises:
        ValueError: from ``update``, when the shapes do not fit.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.auroc()
        >>> y, target = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
        >>> float(metric.compute(metric.update(metric.init(), y, target, None)))
        0.75

    References:
        Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
        Radiology 143, 1982.
    """

    def measure(y: Any, target: Any, weight: Any) -> dict[str, jax.Array]:
        y, target = with_columns(y, target)
        if y.shape[-1] > 2:
            raise ValueError(f"y has {y.shape[-1]} classes, auroc compares two; for one against the rest pass y[:, 1]")
        y = widen(y)
        score = y[..., 1] - y[..., 0] if y.shape[-1] == 2 else y[..., 0]
        weight = expand(weight, target.shape)
        stats = {"score": masked(score, weight), "target": (target > 0.5).astype(weight.dtype), "weight": weight}
        return {name: value.ravel() for name, value in stats.items()}

    def merge(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
        return {name: namespace(a, b).concatenate([a[name], b[name]]) for name in a}

    def compute(stats: dict[str, Array]) -> Array:
        xp = namespace(stats)
        order = xp.argsort(stats["score"])
        score, target, weight = (stats[name][order] for name in ("score", "target", "weight"))
        positive, negative = weight * target, weight * (1 - target)
        below = xp.concatenate([xp.zeros(1, negative.dtype), xp.cumsum(negative)])
        # Each positive is compared with the negatives below it, and half with those that tie with it.
        won = (below[xp.searchsorted(score, score)] + below[xp.searchsorted(score, score, side="right")]) / 2
        area = ratio(xp.sum(positive * won), xp.sum(positive) * xp.sum(negative), np.nan)
        return xp.where(xp.any(xp.isnan(score)), np.nan, area)

    empty = {name: np.zeros((0,), np.float32) for name in ("score", "target", "weight")}
    return _streaming(empty, measure, merge, compute)


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
        >>> round(float(metric.compute(metric.update(metric.init(), y, target, None))), 4)
        0.9486

    References:
        Chan, Golub and LeVeque, Algorithms for computing the sample variance: analysis and recommendations, The
        American Statistician 37, 1983.
    """

    def measure(y: Any, target: Any, weight: Any) -> dict[str, jax.Array]:
        error, target = difference(y, target), widen(target)
        weight = expand(weight, target.shape[:1])
        total = jnp.sum(weight)
        origin = jnp.where(total == 0, 0, target[jnp.argmax(weight)])  # an example that counts; padding may hold NaN
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
    return _streaming({name: np.zeros((), np.float32) for name in names}, measure, merge, compute)


def _streaming(empty: Any, measure: Any, merge: Any, compute: Any) -> Metric:
    """A Metric from the statistics of no data, those of one batch, and how to merge and read them."""

    def update(stats: Any, y: Any, target: Any, weight: Any = None) -> Any:
        return merge(stats, measure(y, target, weight))

    return Metric(lambda: jax.tree.map(np.copy, empty), update, merge, compute)


def _by_class(classes: int, average: str | None, score: Callable[..., Array]) -> Metric:
    """A score of each class from its hits, how often it was predicted and how often it was there."""
    _check_classes(classes)
    if average not in ("macro", "micro", None):
        raise ValueError(f'average must be "macro", "micro" or None, got {average!r}')

    def measure(y: Any, target: Any, weight: Any) -> dict[str, jax.Array]:
        prediction, target, weight = _weighted_classes(y, target, weight, classes)
        count = lambda index, weight: jnp.zeros(classes, weight.dtype).at[index].add(weight)
        hits = count(target, jnp.where(prediction == target, weight, 0))
        return {"hits": hits, "predicted": count(prediction, weight), "actual": count(target, weight)}

    def compute(stats: dict[str, Array]) -> Array:
        values = score(**(jax.tree.map(lambda a: a.sum(), stats) if average == "micro" else stats))
        return values.mean() if average == "macro" else values

    empty = {name: np.zeros(classes, np.float32) for name in ("hits", "predicted", "actual")}
    return _streaming(empty, measure, _add, compute)


def _weighted_classes(y: Any, target: Any, weight: Any, classes: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `to_classes`, with weights; a target that is no class gets class 0 and weight 0."""
    y, target = with_columns(y, target)
    if y.shape[-1] != classes and (y.shape[-1], classes) != (1, 2):
        raise ValueError(f"y has {y.shape[-1]} classes, the metric was made for {classes}")
    prediction, target = to_classes(y, target)
    exists = (target >= 0) & (target < classes)
    weight = jnp.where(exists, expand(weight, target.shape), 0)
    return prediction, jnp.where(exists, target, 0), weight


def _check_classes(classes: int) -> None:
    check_positive_int("classes", classes)
    if classes == 1:
        raise ValueError("classes must be at least 2, got 1; a single logit tells two classes apart: classes=2")


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(lambda a, b: a + b, a, b)
