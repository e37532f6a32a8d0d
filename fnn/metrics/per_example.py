"""Metrics that give one value per example, as the losses of `optax.losses` do."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.ops.checks import check_positive_int
from fnn.ops.targets import check_integer, difference, mean_over_features, to_classes, with_columns


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
        y = jnp.where(y == 0, 0, y)  # lax.top_k puts 0.0 before -0.0
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
