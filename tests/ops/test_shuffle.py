"""Shuffling without a table."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare, spearmanr

from fnn.ops.shuffle import ROUNDS, rows_of_step, shuffled


def words(seed: int) -> jax.Array:
    return jax.random.bits(jax.random.key(seed), (2 * ROUNDS,), jnp.uint32)


permutation = jax.jit(lambda words, epoch, positions, size: shuffled(words, epoch, positions, size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_every_place_is_taken_once(size):
    found = permutation(words(0), 3, jnp.arange(size), size)
    assert sorted(found.tolist()) == list(range(size))


def test_the_size_may_be_traced_and_differ_side_by_side():
    sizes = jnp.array([5, 8])
    found = jax.vmap(lambda size: shuffled(words(0), jnp.int32(0), jnp.arange(8), size))(sizes)
    assert sorted(found[0, :5].tolist()) == list(range(5))
    assert sorted(found[1].tolist()) == list(range(8))


def test_epochs_and_words_give_other_permutations():
    one = permutation(words(0), 0, jnp.arange(100), 100)
    for other in (permutation(words(0), 1, jnp.arange(100), 100), permutation(words(1), 0, jnp.arange(100), 100)):
        assert 0 <= np.sum(np.asarray(one) == np.asarray(other)) < 10


def test_all_permutations_of_four_are_equally_probable():
    many = jax.jit(jax.vmap(lambda epoch: shuffled(words(5), epoch, jnp.arange(4), jnp.int32(4))))(jnp.arange(24000))
    counts = np.unique(np.asarray(many), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 1e-3


def test_neighbours_are_torn_apart_as_by_a_random_permutation():
    """The distance between what was side by side has the distribution of two rows drawn at random."""
    size = 50
    many = jax.vmap(lambda epoch: shuffled(words(2), epoch, jnp.arange(size), jnp.int32(size)))(jnp.arange(400))
    gaps = np.abs(np.diff(np.asarray(many), axis=1)).ravel()
    distances = np.arange(1, size)
    wanted = 2 * (size - distances) / (size * (size - 1)) * len(gaps)
    assert chisquare(np.bincount(gaps, minlength=size)[1:], wanted).pvalue > 1e-3


def test_every_row_is_in_the_first_batch_equally_often():
    size, batch_size, epochs = 200, 10, 2000
    steps = jnp.arange(epochs) * (size // batch_size)
    first = jax.jit(jax.vmap(lambda step: rows_of_step(words(7), step, size, batch_size)))(steps)
    result: Any = chisquare(np.bincount(np.ravel(first), minlength=size))
    assert result.pvalue > 1e-3


def test_the_orders_of_successive_epochs_are_not_correlated():
    size = 5000
    orders = np.asarray(jax.vmap(lambda epoch: shuffled(words(3), epoch, jnp.arange(size), size))(jnp.arange(5)))
    for before, after in zip([np.arange(size), *orders], orders):
        result: Any = spearmanr(before, after)
        assert result.pvalue > 1e-3


def test_a_gather_of_shuffled_rows_compiles_as_users_compile_it():
    """The rounds were fused into the gather, and each wrote out the one before three times: jax 0.12 never ended."""
    data = jnp.arange(80.0).reshape(40, 2)
    gather = lambda words, step: data.at[rows_of_step(words, step, 40, 8)].get(mode="promise_in_bounds")
    expected = gather(words(5), jnp.int32(7))
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        found = jax.jit(gather)(words(5), jnp.int32(7))
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    np.testing.assert_array_equal(found, expected)
