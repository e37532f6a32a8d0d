"""A mixture of experts is the sum, step by step, of what its experts make."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

x = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)


def by_loops(params: Any, expert: fnn.Layer, top: int, room: int) -> np.ndarray:
    """Steps one by one: first choices of all, then second ones."""
    steps = x.reshape(-1, 4)
    scores = steps @ np.asarray(params["router"]["kernel"])
    order = np.argsort(-scores, 1)[:, :top]
    best = np.take_along_axis(scores, order, 1)
    weights = np.exp(best) / np.exp(best).sum(1, keepdims=True)
    used = np.zeros(scores.shape[1], int)
    y = np.zeros_like(steps)
    for choice in range(top):
        for n, step in enumerate(steps):
            chosen = order[n, choice]
            if used[chosen] < room:
                used[chosen] += 1
                own = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], params["experts"])
                y[n] += weights[n, choice] * np.asarray(expert.apply(own, {}, step[None])[0][0])
    return y.reshape(x.shape)


@pytest.mark.parametrize(("top", "capacity"), [(1, 8.0), (2, 8.0), (2, 0.5), (3, 1.0)])
def test_it_agrees_with_loops_with_and_without_room_for_all(top: int, capacity: float, key: jax.Array) -> None:
    expert = fnn.feed_forward(6)
    net = fnn.experts(expert, 4, top=top, capacity=capacity)
    params, state = net.init(key, x)
    room = int(np.ceil(16 * top * capacity / 4))
    np.testing.assert_allclose(net.apply(params, state, x)[0], by_loops(params, expert, top, room), atol=1e-5)


def test_the_loss_is_least_when_all_are_used_alike(key: jax.Array) -> None:
    net = fnn.experts(fnn.feed_forward(6), 4, balance=1.0)
    params, state = net.init(key, x)
    equal = {**params, "router": {"kernel": jnp.zeros((4, 4))}}
    one = {**params, "router": {"kernel": jnp.zeros((4, 4)).at[:, 0].set(50.0)}}
    positive = np.abs(x)
    loss = lambda params: float(net.apply(params, state, positive)[1]["balance"]["auxiliary_loss"])
    np.testing.assert_allclose(loss(equal), 1, atol=1e-5)
    np.testing.assert_allclose(loss(one), 4, atol=1e-3)


def test_a_stack_of_them_learns_and_adds_its_losses(key: jax.Array) -> None:
    block = fnn.transformer_block(fnn.attention(2, causal=True), fnn.experts(fnn.feed_forward(8), 3))
    net = fnn.stack(block, 2)
    objective = fnn.supervised(net, optax.losses.squared_error)
    optimizer = optax.adam(1e-2)
    run = fnn.train_init(net, optimizer, key, x)
    step = jax.jit(fnn.train_step(objective, optimizer))
    losses, metrics = [], {}
    for _ in range(60):
        run, metrics = step(run, (x, np.roll(x, 1, 1)))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert 0.01 < float(metrics["penalty"]) < 0.1


def test_bad_options_are_told() -> None:
    with pytest.raises(ValueError, match="there are 2"):
        fnn.experts(fnn.feed_forward(4), 2, top=3)
    with pytest.raises(ValueError, match="capacity"):
        fnn.experts(fnn.feed_forward(4), 2, capacity=0)


def test_nan_in_a_step_reaches_no_other_step(key: jax.Array) -> None:
    # Steps without room in an expert multiplied the first row of its results by 0.
    net = fnn.experts(fnn.feed_forward(6), 2, top=1, capacity=0.5)
    params, state = net.init(key, x)
    wrong = jnp.asarray(x).at[0, 0].set(jnp.nan)
    assert np.isnan(net.apply(params, state, wrong)[0]).any(-1).sum() == 1
