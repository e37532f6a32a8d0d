"""Families of small tasks for learning to learn: sines, and digits that were not seen before.

A task has a few pairs to learn from, its support, and more to be measured on, its query.

References:
    Finn, Abbeel and Levine, Model-agnostic meta-learning for fast adaptation of deep networks, ICML 2017,
    arXiv:1703.03400, whose sines these are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn


class Task(NamedTuple):
    """One small task: pairs ``(x, y)`` to learn from, and to be measured on."""

    support: tuple[jax.Array, jax.Array]
    query: tuple[jax.Array, jax.Array]


class Problem(NamedTuple):
    """A family of tasks.

    Attributes:
        net: What adapts to a task.
        loss: What its steps make small, per example.
        error: What is reported, per example.
        draw: ``draw(key, pool, queries) -> Task``.
        pools: What training, validation and test tasks are drawn from: trees with a leading axis over seeds.
        joint: The network that is trained jointly.
        draw_joint: Like ``draw``, with the targets that it is trained on.
        from_joint: ``from_joint(params) -> params``, from its parameters to those of ``net``.
        rate: Step size of the adaptation while MAML is trained.
        steps: How many there are then.
        title: What is reported.
        rival: A method that takes no steps: from a task to its mean error.
    """

    net: fnn.Layer
    loss: Callable[..., jax.Array]
    error: Callable[..., jax.Array]
    draw: Callable[..., Task]
    pools: tuple[Any, Any, Any]
    joint: fnn.Layer
    draw_joint: Callable[..., Task]
    from_joint: Callable[[Any], Any]
    rate: float
    steps: int
    title: str
    rival: Callable[[Task], jax.Array] | None = None


def network(hidden: int, outputs: int) -> fnn.Layer:
    """Two hidden layers."""
    return fnn.serial(fnn.dense(hidden), jax.nn.relu, fnn.dense(hidden), jax.nn.relu, head=fnn.dense(outputs))


def sines(seeds: int, shots: int) -> Problem:
    """Regression: each task is a sine with an amplitude and a phase of its own."""

    def draw(key: jax.Array, pool: Any, queries: int) -> Task:
        amplitude = jax.random.uniform(fnn.fold(key, "amplitude"), minval=0.1, maxval=5.0)
        phase = jax.random.uniform(fnn.fold(key, "phase"), maxval=jnp.pi)
        x = jax.random.uniform(fnn.fold(key, "x"), (shots + queries, 1), minval=-5.0, maxval=5.0)
        y = amplitude * jnp.sin(x - phase)
        return Task((x[:shots], y[:shots]), (x[shots:], y[shots:]))

    net, loss = network(40, 1), fnn.squared_error
    pools = (jnp.zeros(seeds),) * 3  # there is no end of sines: they are drawn from nothing
    return Problem(net, loss, loss, draw, pools, net, draw, lambda params: params, 0.01, 1, "squared error")


def digits(seeds: int, shots: int, ways: int, seed: int) -> Problem:
    """Classification: each task has three of the digits, in any order; four of the ten are kept for the test."""
    data = datasets.load("digits")
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    count = np.bincount(y).min()
    images = np.stack([x[y == digit][:count].reshape(count, -1) for digit in range(10)])  # (10, count, pixels)
    orders = np.stack([np.random.default_rng((seed, number)).permutation(10) for number in range(seeds)])
    seen, cut = images[orders[:, :6]], count * 2 // 3
    pools = (seen[:, :, :cut], seen[:, :, cut:], images[orders[:, 6:]])

    def draw(key: jax.Array, pool: jax.Array, queries: int, own: bool = False) -> Task:
        chosen = jax.random.permutation(fnn.fold(key, "classes"), len(pool))[:ways]
        keys = jax.random.split(fnn.fold(key, "images"), ways)
        rows = jax.vmap(lambda key: jax.random.permutation(key, pool.shape[1])[: shots + queries])(keys)
        x = pool[chosen[:, None], rows]  # (ways, shots + queries, pixels)
        y = jnp.broadcast_to((chosen if own else jnp.arange(ways))[:, None], rows.shape)
        part = lambda rows: (x[:, rows].reshape(-1, x.shape[-1]), y[:, rows].reshape(-1))
        return Task(part(slice(None, shots)), part(slice(shots, None)))

    def nearest_mean(task: Task) -> jax.Array:
        means = task.support[0].reshape(ways, shots, -1).mean(axis=1)
        distances = ((task.query[0][:, None] - means) ** 2).sum(axis=-1)
        return (jnp.argmin(distances, axis=1) != task.query[1]).mean()

    net, loss = network(32, ways), optax.losses.softmax_cross_entropy_with_integer_labels
    head = {"kernel": jnp.zeros((32, ways)), "bias": jnp.zeros(ways)}
    return Problem(
        net, loss, lambda logits, y: 1 - fnn.accuracy(logits, y), draw, pools, network(32, 6),
        lambda key, pool, queries: draw(key, pool, queries, own=True), lambda params: params | {"head": head},
        0.1, 2, "share of wrong answers", nearest_mean,
    )  # fmt: skip
