"""Attention agrees with loops, in one piece and in chunks, with every kind of mask."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.ops import attend as module
from fnn.ops.attend import Pattern, attend
from fnn.ops.positions import Alibi

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, FEATURES = 2, 4, 2, 6, 6, 8


def arrays(queries: int = QUERIES, keys: int = KEYS) -> tuple[jax.Array, jax.Array, jax.Array]:
    normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    return (
        normal(0, BATCH, HEADS, queries, FEATURES),
        normal(1, BATCH, KV_HEADS, keys, FEATURES),
        normal(2, BATCH, KV_HEADS, keys, FEATURES),
    )


def by_loops(query: Any, key: Any, value: Any, seen: Any, bias: Any = 0.0) -> np.ndarray:
    """One query at a time, in float64."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    batch, heads, queries, features = query.shape
    keys = key.shape[2]
    seen = np.broadcast_to(seen, (batch, heads, queries, keys))
    bias = np.broadcast_to(np.asarray(bias, np.float64), seen.shape)
    y = np.zeros((*query.shape[:3], value.shape[-1]))
    for b, h, q in np.ndindex(batch, heads, queries):
        own = h // (heads // key.shape[1])
        columns = [k for k in range(keys) if seen[b, h, q, k]]
        if columns:
            scores = np.array([query[b, h, q] @ key[b, own, k] / np.sqrt(features) + bias[b, h, q, k] for k in columns])
            weights = np.exp(scores - scores.max())
            y[b, h, q] = weights / weights.sum() @ value[b, own, columns]
    return y


def distance(queries: int = QUERIES, keys: int = KEYS, start: int = 0) -> np.ndarray:
    return start + np.arange(queries)[:, None] - np.arange(keys)


MASK = np.random.default_rng(0).random((BATCH, 1, QUERIES, KEYS)) < 0.6
MASK[0, 0, 2] = False  # a query that sees nothing
BIAS = np.random.default_rng(1).normal(size=(1, HEADS, QUERIES, KEYS)).astype(np.float32)
HIDING = np.where(MASK, 0, -np.inf).astype(np.float32)
SLOPES = Alibi().slopes(HEADS)[:, None, None]

CASES = {
    "everything": (Pattern(), (), True, 0.0),
    "causal": (Pattern(causal=True), (), distance() >= 0, 0.0),
    "a causal window": (Pattern(causal=True, window=3), (), (distance() >= 0) & (distance() < 3), 0.0),
    "a window both ways": (Pattern(window=2), (), np.abs(distance()) < 2, 0.0),
    "alibi": (Pattern(causal=True, slopes=Alibi().slopes(HEADS)), (), distance() >= 0, -SLOPES * np.abs(distance())),
    "a mask": (Pattern(), (MASK,), MASK, 0.0),
    "a mask and causal": (Pattern(causal=True), (MASK,), MASK & (distance() >= 0), 0.0),
    "a bias": (Pattern(), (BIAS,), True, BIAS),
    "a bias that hides": (Pattern(), (HIDING,), MASK, 0.0),
    "a mask and a bias": (Pattern(), (MASK, BIAS), MASK, BIAS),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "in chunks"])
@pytest.mark.parametrize("case", CASES)
def test_it_agrees_with_loops(case: str, chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if chunked:
        in_chunks(monkeypatch)
    pattern, biases, seen, bias = CASES[case]
    y = attend(*arrays(), *map(jnp.asarray, biases), pattern=pattern)
    np.testing.assert_allclose(y, by_loops(*arrays(), seen, bias), atol=2e-6)


def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries at a time, in three stretches."""
    monkeypatch.setattr(module, "WHOLE", 0)
    monkeypatch.setattr(module, "CHUNK", 2 * BATCH * HEADS * KEYS)
    monkeypatch.setattr(module, "PARTS", 3)


@pytest.mark.parametrize("case", CASES)
def test_chunks_have_the_gradients_of_the_whole(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, biases, _, _ = CASES[case]

    def loss(xs: Any) -> jax.Array:
        return jnp.sum(jnp.sin(attend(*xs, *map(jnp.asarray, biases), pattern=pattern)))

    whole = jax.grad(loss)(arrays())
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in whole)
    in_chunks(monkeypatch)
    chex.assert_trees_all_close(jax.grad(lambda xs: loss(xs))(arrays()), whole, atol=3e-6)


def test_chunks_work_in_forward_mode_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    in_chunks(monkeypatch)
    xs = arrays()

    def loss(xs: Any) -> jax.Array:
        return jnp.sum(jnp.sin(attend(*xs, pattern=Pattern(causal=True))))

    product = jax.jvp(jax.grad(loss), (xs,), (xs,))[1]
    small = 1e-3
    moved = [jax.tree.map(lambda x, sign=sign: x * (1 + sign * small), xs) for sign in (1, -1)]
    slope = jax.tree.map(lambda a, b: (a - b) / (2 * small), *map(jax.grad(loss), moved))
    chex.assert_trees_all_close(product, slope, atol=2e-2, rtol=2e-2)


def test_positions_may_begin_later_and_be_traced() -> None:
    query, key, value = arrays()
    late = jax.jit(lambda start: attend(query[:, :, :2], key, value, pattern=Pattern(start, causal=True)))(3)
    np.testing.assert_allclose(late, by_loops(query[:, :, :2], key, value, distance(2, KEYS, 3) >= 0), atol=2e-6)


def test_a_causal_chunk_reads_only_keys_that_it_can_see(monkeypatch: pytest.MonkeyPatch) -> None:
    in_chunks(monkeypatch)
    text = str(jax.make_jaxpr(lambda *xs: attend(*xs, pattern=Pattern(causal=True)))(*arrays()))
    for keys in (2, 4, 6):
        assert f"{BATCH},{KV_HEADS},{keys},{FEATURES}" in text


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "in chunks"])
def test_dropout_keeps_the_mean_and_differs_between_queries(chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if chunked:
        in_chunks(monkeypatch)
    query, key, value = arrays()
    run = lambda key_: attend(query, key, value, rate=0.5, drop_key=key_)
    many = jax.vmap(run)(jax.random.split(jax.random.key(3), 4000))
    np.testing.assert_allclose(many.mean(0), attend(query, key, value), atol=0.1)
    same_rows = attend(jnp.zeros_like(query), key, value, rate=0.5, drop_key=jax.random.key(4))
    assert not np.allclose(same_rows[:, :, 0], same_rows[:, :, 1])


def test_scores_are_float32_where_x_is_bfloat16() -> None:
    query, key, value = (x.astype(jnp.bfloat16) for x in arrays())
    y = attend(query, key, value, pattern=Pattern(causal=True))
    assert y.dtype == jnp.bfloat16
    query, key, value = (np.asarray(x.astype(jnp.float32)) for x in (query, key, value))
    wanted = by_loops(query, key, value, distance() >= 0)
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, atol=0.03)


def test_long_sequences_take_memory_linear_in_their_length() -> None:
    def temporaries(length: int) -> int:
        spec = jax.ShapeDtypeStruct((1, 4, length, 32), jnp.float32)
        loss = lambda q, k, v: jnp.sum(attend(q, k, v, pattern=Pattern(causal=True)) ** 2)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(spec, spec, spec).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert temporaries(16384) < 2**30 < 4 * 16384**2 * 4  # all scores would be 4 GiB
