"""Scores of a classifier over a data set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.metrics.streaming import Metric, add, streaming
from fnn.ops.checks import check_positive_int
from fnn.ops.dtypes import widen
from fnn.ops.targets import counted, expand, is_class, masked, namespace, ratio, to_classes, with_columns

Array = jax.Array | np.ndarray


def confusion_matrix(classes: int) -> Metric:
    """How often each class was taken for each other class.

    Args:
        classes: How many classes there are; 2 also for a single logit.

    Returns:
        A streaming metric for logits and targets as `accuracy` takes them. A target that is no class must have weight
        0: otherwise it is an error where it is concrete, and left out where it is traced, as in evaluation.

        - stats: ``(classes, classes)``, sums of weights; rows are targets, columns are predictions

    Raises:
        ValueError: from ``update``, when the shapes do not fit or a target is no class.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.confusion_matrix(2)
        >>> y, target = jnp.array([3.0, -1.0, 2.0]), jnp.array([1, 1, 1])
        >>> metric(y, target).tolist()
        [[0.0, 0.0], [1.0, 2.0]]
    """
    _check_classes("confusion_matrix", classes)

    def measure(y: Any, target: Any, weight: Any) -> jax.Array:
        prediction, target, weight = _weighted_classes(y, target, weight, classes)
        return jnp.zeros((classes, classes), weight.dtype).at[target, prediction].add(weight)

    return streaming(np.zeros((classes, classes), np.float32), measure, add, lambda stats: stats)


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
        A streaming metric for logits and targets as `accuracy` takes them. A target that is no class must have weight
        0: otherwise it is an error where it is concrete, and left out where it is traced, as in evaluation.

        - stats: ``hits``, ``predicted`` and ``actual``, each ``(classes,)``: sums of weights by class

    Raises:
        ValueError: when ``average`` is none of these; from ``update``, when the shapes do not fit or a target is no
            class.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.precision(2, average=None)
        >>> y, target = jnp.array([3.0, -1.0, 2.0, 1.0]), jnp.array([1, 1, 1, 0])
        >>> [round(value, 3) for value in metric(y, target).tolist()]
        [0.0, 0.667]

    References:
        Van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    return _by_class("precision", classes, average, lambda hits, predicted, actual: ratio(hits, predicted))


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
        >>> float(metric(y, target))
        0.75
    """
    return _by_class("recall", classes, average, lambda hits, predicted, actual: ratio(hits, actual))


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
        >>> round(float(metric(y, target)), 3)
        0.556

    References:
        Van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    return _by_class("f1", classes, average, lambda hits, predicted, actual: ratio(2 * hits, predicted + actual))


def auroc() -> Metric:
    """The area under the ROC curve: how probably a positive example scores higher than a negative one.

    Exact, ties and weights included: it keeps every score, so its statistics grow with the data. NaN where one of the
    classes has no example. A target that is neither 0 nor 1 must have weight 0: otherwise it is an error where it is
    concrete, and left out where it is traced.

    Returns:
        A streaming metric for two classes: scores ``(batch,)`` or ``(batch, 1)``, or logits ``(batch, 2)``, of which
        the difference is the score; targets 0 and 1, ``(batch,)``.

        - stats: ``score``, ``target`` and ``weight``, each ``(examples so far,)``

    Raises:
        ValueError: from ``update``, when the shapes do not fit or a target is no class.

    Example:
        >>> import fnn, jax.numpy as jnp
        >>> metric = fnn.auroc()
        >>> y, target = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
        >>> float(metric(y, target))
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
        weight = counted(target, (target == 0) | (target == 1), expand(weight, target.shape), 2)
        stats = {"score": masked(score, weight), "target": (target == 1).astype(weight.dtype), "weight": weight}
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
    return streaming(empty, measure, merge, compute)


def _by_class(kind: str, classes: int, average: str | None, score: Callable[..., Array]) -> Metric:
    """A score of each class from its hits, how often it was predicted and how often it was there."""
    _check_classes(kind, classes)
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
    return streaming(empty, measure, add, compute)


def _weighted_classes(y: Any, target: Any, weight: Any, classes: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `to_classes`, with weights; a target that is no class gets class 0 and weight 0."""
    y, target = with_columns(y, target)
    if y.shape[-1] != classes and (y.shape[-1], classes) != (1, 2):
        raise ValueError(f"y has {y.shape[-1]} classes, the metric was made for {classes}")
    weight = expand(weight, target.shape)
    prediction, target_class = to_classes(y, target)
    exists = (target == 0) | (target == 1) if y.shape[-1] == 1 else is_class(target, classes)
    return prediction, jnp.where(exists, target_class, 0), counted(target, exists, weight, classes)


def _check_classes(kind: str, classes: int) -> None:
    if np.ndim(classes):
        raise TypeError(
            f"{kind} takes the number of classes and returns a metric, which takes predictions and targets: "
            f"fnn.{kind}(10)(predictions, targets)"
        )
    check_positive_int("classes", classes)
    if classes == 1:
        raise ValueError("classes must be at least 2, got 1; a single logit tells two classes apart: classes=2")
