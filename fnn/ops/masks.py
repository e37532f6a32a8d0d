"""Masks of attention: what a user gives, which keys it shows, and values that are not finite in keys that it hides."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.ops.attend import Pattern
from fnn.ops.sequences import valid_lengths


def read_masks(masks: Sequence[Any], wanted: tuple[int, int, int, int]) -> tuple[list[jax.Array], jax.Array | None]:
    """Give every mask four axes, and check its values where they are known.

    Args:
        masks: Lengths ``(batch,)``, and bools or floats with 2 to 4 axes.
        wanted: ``(batch, heads, queries, keys)``.

    Returns:
        The masks, each axis that of ``wanted`` or 1; and for which examples traced values are legal, ``(batch,)`` or
        ``()``, or None where that is known.

    Raises:
        ValueError: when a mask does not fit, concrete lengths are out of range, or a concrete float mask consists of
            zeros and ones.
    """
    batch, _, _, keys = wanted
    found: list[jax.Array] = []
    legal: list[jax.Array | None] = []
    for mask in masks:
        if jnp.issubdtype(mask.dtype, jnp.integer):
            if mask.shape != (batch,):
                raise ValueError(
                    f"integers are lengths, wanted shape ({batch},), got {mask.dtype}{list(mask.shape)}; for a mask "
                    "pass booleans, mask.astype(bool), True where a key may be attended"
                )
            legal.append(valid_lengths(mask, batch, keys))
            found.append((jnp.arange(keys) < mask[:, None])[:, None, None])
            continue
        axes = {2: (1, 2), 3: (1,), 4: ()}.get(mask.ndim)
        grown = mask if axes is None else jnp.expand_dims(mask, axes)
        if axes is None or any(have not in (1, want) for have, want in zip(grown.shape, wanted)):
            raise ValueError(
                f"a mask has shape {mask.shape}, wanted (batch, keys), (batch, queries, keys) or (batch, heads, "
                f"queries, keys), each axis of {wanted} or 1"
            )
        if mask.dtype != bool:
            legal.append(_is_additive(mask))
        found.append(grown)
    traced = [one for one in legal if one is not None]
    return found, functools.reduce(jnp.logical_and, traced) if traced else None


def _is_additive(mask: jax.Array) -> jax.Array | None:
    """Raise if a concrete float mask consists of zeros and ones; whether a traced one does not."""
    try:
        concrete = np.asarray(mask)
    except jax.errors.TracerArrayConversionError:
        return ~(jnp.all((mask == 0) | (mask == 1)) & jnp.any(mask == 0) & jnp.any(mask == 1))
    zeros, ones = concrete == 0, concrete == 1
    if zeros.any() and ones.any() and (zeros | ones).all():
        raise ValueError(
            "a float mask is added to the scores, and this one consists of zeros and ones; pass booleans, "
            "mask.astype(bool), True where a key may be attended"
        )
    return None


def shown(mask: jax.Array) -> jax.Array:
    """Which keys a mask shows; ``-inf`` hides."""
    return mask if mask.dtype == bool else mask > -jnp.inf


def zero_non_finite(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Zeros in place of the rows of ``x (batch, time, features)`` that are not finite, and which ones they are.

    A weight of 0 does not hide NaN from a product, nor from the gradient of one: ``0 * nan`` is NaN.
    """
    wrong = ~jnp.isfinite(x).all(-1)
    return jnp.where(wrong[..., None], 0, x), wrong


def reached(keys: jax.Array, biases: Sequence[jax.Array], pattern: Pattern, queries: int) -> jax.Array:
    """Which queries see one of these keys: bools ``(batch, keys)`` to ``(batch, queries)``."""
    time = keys.shape[1]
    seen = functools.reduce(jnp.logical_and, map(shown, biases), keys[:, None, None]).any(1)
    if seen.shape[1] == 1 and pattern.window is None:
        first = jnp.min(jnp.where(seen, jnp.arange(time), time), -1, initial=time)
        return (pattern.start + jnp.arange(queries) if pattern.causal else time - 1) >= first
    near = pattern.seen(pattern.distances(queries, time))
    return (seen if near is None else seen & near).any(-1)


def clear_padding(x: jax.Array, masks: Sequence[Any]) -> jax.Array:
    """Zeros in place of the rows of ``x (batch, time, features)`` that are not finite and hidden from all queries.

    What layers compute from the padding of a sequence is not used, but its gradient would be NaN times 0.

    Args:
        x: ``(batch, time, features)``.
        masks: As for attention; other inputs are ignored.
    """
    batch, time = x.shape[:2]
    rows = []
    for mask in masks:
        if not hasattr(mask, "dtype"):
            continue
        integers = jnp.issubdtype(mask.dtype, jnp.integer)
        if integers and mask.shape == (batch,):
            rows.append(jnp.arange(time) < mask[:, None])
        elif not integers and 2 <= mask.ndim <= 4 and mask.shape[0] in (1, batch) and mask.shape[-1] in (1, time):
            rows.append(shown(mask).any(tuple(range(1, mask.ndim - 1))))
    if not rows:
        return x
    clean, wrong = zero_non_finite(x)
    return jnp.where((wrong & ~functools.reduce(jnp.logical_and, rows))[..., None], clean, x)


def spoil(y: jax.Array, wrong: jax.Array | None, legal: jax.Array | None) -> jax.Array:
    """NaN in rows of ``y (batch, time, features)`` that saw what is not finite, and in examples of illegal masks.

    The former is added, so that a gradient that is NaN stays so.
    """
    y = y if wrong is None else y + jnp.where(wrong[..., None], jnp.nan, 0)
    return y if legal is None else jnp.where(legal.reshape(-1, 1, 1), y, jnp.nan)
