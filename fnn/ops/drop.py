"""Dropping at random, as dropout and attention share it."""

from typing import Any

import jax
import jax.numpy as jnp


def drop(x: jax.Array, rate: Any, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Drop entries of ``x`` by draws of the given shape, which broadcasts to x."""
    rate = jnp.asarray(rate, jnp.float32)
    scale = (1 / (1 - rate)).astype(x.dtype)
    return jnp.where(_keep(rate, key, shape), x * scale, 0)


def _keep(rate: jax.Array, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Bools, each False with probability ``rate``.

    Every 32-bit random word decides two of them, one for each half: that takes half the time of
    `jax.random.bernoulli`, which spends a word on each. Only the last axis is halved, so that a sharded batch stays so.
    """
    *leading, last = shape or (1,)
    words = jax.random.bits(key, (*leading, (last + 1) // 2), jnp.uint32)
    dropped = jnp.round(rate * 2**16).astype(jnp.uint32)
    halves = jnp.concatenate([(words & 0xFFFF) >= dropped, (words >> 16) >= dropped], axis=-1)
    return halves[..., :last].reshape(shape)
