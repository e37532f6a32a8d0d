"""Flax Linen and optax: a step under `jax.jit`, compiled once or for every trial, and a Python loop over it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.harness import Arrays
from benchmarks.peers.compiled import cross_entropy, size
from benchmarks.study_peers import Outcome, Program, StudyTask


class MLP(nn.Module):
    hidden: int
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.hidden)(x)))


class CNN(nn.Module):
    hidden: int
    classes: int

    @nn.compact
    def __call__(self, x):
        for features in (self.hidden, 2 * self.hidden):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return nn.Dense(self.classes)(x.reshape((x.shape[0], -1)))


class Functions(NamedTuple):
    """Attributes: how a training starts, goes on and is measured."""

    init: Any
    step: Any
    accuracy: Any


def build(net: nn.Module, tx: optax.GradientTransformation) -> Functions:
    """What a script writes down for a network and an optimizer."""

    def init(key: jax.Array, x: Any) -> Any:
        params = net.init(key, x)
        return params, tx.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        grads = jax.grad(lambda params: cross_entropy(net.apply(params, x), y))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    @jax.jit
    def accuracy(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(net.apply(params, x).argmax(-1) == y)

    return Functions(init, step, accuracy)


def prepare(task: StudyTask, arrays: Arrays, rebuilt: bool) -> Program:
    net = {"mlp": MLP, "cnn": CNN}[task.network](task.hidden, task.classes)
    x, y = arrays["x"], arrays["y"]

    def train(functions: Functions, state: Any, seed: Sequence[int]) -> float:
        for rows in task.batches(len(x), seed):
            state = functions.step(*state, x[rows], y[rows])
        return float(functions.accuracy(state[0], arrays["x_validation"], arrays["y_validation"]))

    def build_each(rates: Sequence[float], seed: int) -> Outcome:
        accuracies = []
        for number, rate in enumerate(rates):
            functions = build(net, optax.adam(rate))
            state = functions.init(jax.random.key(seed), x[:1])
            accuracies.append(train(functions, state, (seed, number)))
        return Outcome(accuracies, task.steps)

    once = build(net, optax.inject_hyperparams(optax.adam)(learning_rate=1e-3))
    once = once._replace(init=jax.jit(once.init))

    def share_one(rates: Sequence[float], seed: int) -> Outcome:
        accuracies = []
        for number, rate in enumerate(rates):
            params, opt_state = once.init(jax.random.key(seed), x[:1])
            opt_state.hyperparams["learning_rate"] = jnp.float32(rate)
            accuracies.append(train(once, (params, opt_state), (seed, number)))
        return Outcome(accuracies, task.steps)

    def parameters() -> int:
        return size(jax.eval_shape(net.init, jax.random.key(0), x[:1]))

    return Program(build_each if rebuilt else share_one, parameters)
