"""Shuffling without a table: each row of a permutation is computed where it is needed."""

import jax
import jax.numpy as jnp

ROUNDS = 16


def rows_of_step(words: jax.Array, step: jax.Array, size: jax.Array | int, batch_size: int) -> jax.Array:
    """Rows of one batch: each epoch is another permutation, and what is left at its end is dropped.

    Args:
        words: Random bits, ``(2 * ROUNDS,)`` uint32.
        step: Number of the step, counted from the first epoch, an integer.
        size: How many rows there are, an integer.
        batch_size: Rows of a batch.

    Returns:
        Their numbers, ``(batch_size,)`` int32.
    """
    steps_per_epoch = size // batch_size
    positions = step % steps_per_epoch * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return shuffled(words, step // steps_per_epoch, positions, size)


def shuffled(words: jax.Array, epoch: jax.Array, positions: jax.Array, size: jax.Array | int) -> jax.Array:
    """Where a random permutation of ``0 .. size - 1`` takes ``positions``.

    The swap-or-not shuffle: in each round every element may change places with its mirror image about a random point,
    as a hash of the pair decides. So a batch costs its own rows alone, ``size`` may differ between networks that train
    side by side, and no permutation is sorted or kept.

    Args:
        words: Random bits, ``(2 * ROUNDS,)`` uint32.
        epoch: Which permutation, an integer.
        positions: Elements, any shape, int32, each below ``size``.
        size: How many elements are permuted, an integer.

    Returns:
        Their places, int32.

    References:
        Hoang, Morris and Rogaway, An enciphering scheme based on a card shuffle, CRYPTO 2012, arXiv:1208.1176.
    """
    size = jnp.asarray(size, jnp.int32)
    mixed = _hash(words ^ _hash(jnp.asarray(epoch).astype(jnp.uint32)))
    mirrors = (mixed[:ROUNDS] % size.astype(jnp.uint32)).astype(jnp.int32)

    def swap(x: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        mirror, salt = one
        image = mirror - x
        image = jnp.where(image < 0, image + size, image)
        swaps = _hash(jnp.maximum(x, image).astype(jnp.uint32) ^ salt) >> 31
        return jnp.where(swaps == 1, image, x), None

    places = jax.lax.scan(swap, positions, (mirrors, mixed[ROUNDS:]), unroll=ROUNDS)[0]  # one kernel, traced once
    # Without a barrier XLA fuses the rounds into a gather of these places and writes out each round three times for the
    # next: compiling does not end with jax 0.12.
    return jax.lax.optimization_barrier(places)


def _hash(x: jax.Array) -> jax.Array:
    """Mix 32 bits so that each depends on all: the constants are those of https://github.com/skeeto/hash-prospector."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
