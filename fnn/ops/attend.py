"""Attention: each query takes a mean of values, weighted by how well their keys fit it."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnn.ops.drop import drop
from fnn.ops.dtypes import wide

CHUNK = 2**23  # so many scores are held at once: 32 MB in float32
WHOLE = 2**26  # up to so many scores, all are
PARTS = 8  # a long causal sequence is cut in so many, each of which reads no key that is hidden from all of it


class Pattern(NamedTuple):
    """Which keys a query may see, and what is added to its scores, by position alone.

    Attributes:
        start: Position of the first query; the first key stands at 0. May be traced.
        causal: Whether keys after the query are hidden.
        window: How many keys back a query sees, itself among them, and as many ahead where it is not causal. None: all.
        slopes: ``(heads,)``; by how much the score falls with each step of distance. None: not at all.
    """

    start: Any = 0
    causal: bool = False
    window: int | None = None
    slopes: Any = None

    def distances(self, queries: int, keys: int) -> jax.Array:
        """How far each key lies before each query, ``(queries, keys)``."""
        return (self.start + jnp.arange(queries))[:, None] - jnp.arange(keys)

    def seen(self, distances: jax.Array) -> jax.Array | None:
        """Bools ``(queries, keys)``, or None where every query sees every key."""
        seen = distances >= 0 if self.causal else None
        if self.window is not None:
            near = jnp.abs(distances) < self.window
            seen = near if seen is None else seen & near
        return seen


EVERYWHERE = Pattern()


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *biases: jax.Array,
    pattern: Pattern = EVERYWHERE,
    scale: Any = None,
    rate: Any = None,
    drop_key: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention, in memory linear in the length of long sequences.

    Scores and their softmax are float32, or float64 for float64 inputs. Where there are more than 2**26 scores, they
    are computed in chunks of queries, and again for the gradient.

    Args:
        query: ``(batch, heads, queries, features)``.
        key: ``(batch, kv_heads, keys, features)``; each head of keys serves as many heads of queries as divide it.
        value: ``(batch, kv_heads, keys, value_features)``.
        *biases: Bools, of which False hides a key, and floats that are added to the scores; of 4 axes, each of them 1
            or that of ``(batch, heads, queries, keys)``.
        pattern: What is known of the scores from positions alone.
        scale: Factor of the scores. None: ``1 / sqrt(features)``.
        rate: The fraction of the weights that is dropped; may be traced. None: no dropout.
        drop_key: Key for dropout.

    Returns:
        ``(batch, heads, queries, value_features)``; zeros for a query that sees no key.
    """
    batch, heads, queries, features = query.shape
    kv_heads, keys = key.shape[1:3]
    scale = 1 / math.sqrt(features) if scale is None else scale
    scaled = query * jnp.asarray(scale, query.dtype)
    inputs = _Inputs(
        scaled.reshape(batch, kv_heads, heads // kv_heads, queries, features),
        key,
        value,
        [_group(bias, kv_heads) for bias in biases],
        None if rate is None else drop_key,
    )
    if batch * heads * queries * keys <= WHOLE:
        y = _rows(inputs, pattern, rate)
    else:
        size = max(1, CHUNK // (batch * heads * keys))
        y = jnp.concatenate([_chunked(part, own, rate, size) for part, own in _parts(inputs, pattern)], -2)
    return y.reshape(batch, heads, queries, value.shape[-1])


class _Inputs(NamedTuple):
    """Arrays whose heads are split in groups: query ``(batch, kv_heads, groups, queries, features)``."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    biases: Sequence[jax.Array]
    drop_key: jax.Array | None


def _group(bias: jax.Array, kv_heads: int) -> jax.Array:
    batch, heads, queries, keys = bias.shape
    return bias.reshape(batch, *((1, 1) if heads == 1 else (kv_heads, heads // kv_heads)), queries, keys)


def _parts(inputs: _Inputs, pattern: Pattern) -> Iterator[tuple[_Inputs, Pattern]]:
    """Stretches of queries, each with only those keys that it can see."""
    queries, keys = inputs.query.shape[-2], inputs.key.shape[-2]
    if not (pattern.causal and isinstance(pattern.start, int)):
        yield inputs, pattern
        return
    length = -(-queries // PARTS)
    for number, first in enumerate(range(0, queries, length)):
        rows = slice(first, first + length)
        place = pattern.start + first
        begin = 0 if pattern.window is None else max(0, place - pattern.window + 1)
        seen = slice(begin, min(keys, place + length))
        cut = lambda bias, rows=rows, seen=seen: bias[
            ..., rows if bias.shape[-2] > 1 else slice(None), seen if bias.shape[-1] > 1 else slice(None)
        ]
        drop_key = None if inputs.drop_key is None else jax.random.fold_in(inputs.drop_key, number)
        part = _Inputs(
            inputs.query[..., rows, :],
            inputs.key[..., seen, :],
            inputs.value[..., seen, :],
            [cut(bias) for bias in inputs.biases],
            drop_key,
        )
        yield part, pattern._replace(start=place - begin)


def _chunked(inputs: _Inputs, pattern: Pattern, rate: Any, size: int) -> jax.Array:
    """`_rows` for so many queries at a time; the gradient makes their scores again."""
    queries = inputs.query.shape[-2]
    size = min(size, queries)
    count = -(-queries // size)

    def cut(array: jax.Array) -> jax.Array:
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, count * size - queries), (0, 0)])
        return jnp.moveaxis(array.reshape(*array.shape[:-2], count, size, array.shape[-1]), -3, 0)

    for_all = [bias for bias in inputs.biases if bias.shape[-2] == 1]
    by_query = [bias for bias in inputs.biases if bias.shape[-2] > 1]

    @jax.checkpoint
    def rows(key: jax.Array, value: jax.Array, for_all: Any, chunk: Any) -> jax.Array:
        number, query, by_query = chunk
        drop_key = None if inputs.drop_key is None else jax.random.fold_in(inputs.drop_key, number)
        mine = _Inputs(query, key, value, [*for_all, *by_query], drop_key)
        return _rows(mine, pattern._replace(start=pattern.start + number * size), rate)

    chunks = (jnp.arange(count), cut(inputs.query), [cut(bias) for bias in by_query])
    _, y = lax.scan(lambda _, chunk: (None, rows(inputs.key, inputs.value, for_all, chunk)), None, chunks)
    y = jnp.moveaxis(y, 0, -3)
    return y.reshape(*y.shape[:-3], count * size, y.shape[-1])[..., :queries, :]


def _rows(inputs: _Inputs, pattern: Pattern, rate: Any) -> jax.Array:
    """Attention with all scores at once."""
    query, key, value, biases, drop_key = inputs
    batch, kv_heads, groups, queries, features = query.shape
    keys = key.shape[-2]
    flat = query.reshape(batch, kv_heads, groups * queries, features)
    dtype = wide(query.dtype)
    scores = jnp.einsum("bhqd,bhkd->bhqk", flat, key, preferred_element_type=dtype)
    scores = scores.reshape(batch, kv_heads, groups, queries, keys)
    distances = pattern.distances(queries, keys)
    if pattern.slopes is not None:
        slopes = jnp.asarray(pattern.slopes, dtype).reshape(kv_heads, groups, 1, 1)
        scores = scores - slopes * jnp.abs(distances)
    seen = [pattern.seen(distances)]
    for bias in biases:
        shown = bias if bias.dtype == bool else bias > -jnp.inf
        seen.append(shown)
        scores = scores if bias.dtype == bool else scores + jnp.where(shown, bias, 0).astype(dtype)
    weights = _softmax(scores, [one for one in seen if one is not None], bool(biases)).astype(value.dtype)
    if drop_key is not None:
        weights = drop(weights, rate, drop_key, weights.shape)
    y = jnp.einsum("bhqk,bhkd->bhqd", weights.reshape(batch, kv_heads, groups * queries, keys), value)
    return y.reshape(batch, kv_heads, groups, queries, value.shape[-1])


def _softmax(scores: jax.Array, seen: Sequence[jax.Array], may_be_empty: bool) -> jax.Array:
    """Weights over the last axis; 0 where a key is not seen, and so everywhere in a row that sees none."""
    if not seen:
        return jax.nn.softmax(scores, -1)
    shown = functools.reduce(jnp.logical_and, seen)
    weights = jax.nn.softmax(jnp.where(shown, scores, jnp.finfo(scores.dtype).min), -1)
    return jnp.where(shown, weights, 0) if may_be_empty else weights
