import json
import os
import subprocess
import sys
from typing import Any

import chex
import jax
import numpy as np
import optax
import pytest

import fnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)).astype(np.float32), RNG.integers(0, 4, 8)
WEIGHT = np.array([1, 2, 0.5, 1, 0, 0, 0, 3], np.float32)
NET = fnn.dense(4)
OBJECTIVE = fnn.supervised(
    NET, optax.losses.softmax_cross_entropy_with_integer_labels, metrics={"accuracy": fnn.accuracy}
)


def test_a_step_on_four_devices_is_that_of_one() -> None:
    """With shard_map's default, gradients were four times too large; with weights, a mean of the devices' means."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.training.four_devices"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert len(differences) == 9
    assert differences == pytest.approx(dict.fromkeys(differences, 0.0), abs=2e-6)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.5), optax.lbfgs()], ids=["sgd", "lbfgs"])
def test_weights_over_an_axis_of_vmap_are_those_of_the_whole_batch(optimizer: Any) -> None:
    """The mean of the parts' means was reported and followed."""
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
    whole, metrics = jax.jit(fnn.train_step(OBJECTIVE, optimizer))(run, (X, Y, WEIGHT))
    step = fnn.train_step(OBJECTIVE, optimizer, axis_name="part")
    parts = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), (X, Y, WEIGHT))
    spread, measured = jax.jit(jax.vmap(step, in_axes=(None, 0), axis_name="part"))(run, parts)
    for part in range(4):
        at = lambda tree, part=part: jax.tree.map(lambda leaf: leaf[part], tree)
        chex.assert_trees_all_close(at(spread).params, whole.params, atol=1e-6)
        chex.assert_trees_all_close(at(measured), metrics, atol=1e-6)


def test_a_custom_objective_uses_supervised_on_one_part_of_the_batch() -> None:
    inner = fnn.supervised(NET, optax.losses.softmax_cross_entropy_with_integer_labels, axis_name="part")

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Any:
        loss, (state, metrics) = inner(params, state, batch, key=key, train=train)
        return 2 * loss, (state, metrics)

    optimizer = optax.sgd(0.5)
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
    half = optax.sgd(1.0)
    whole, _ = fnn.train_step(OBJECTIVE, half)(run, (X, Y, WEIGHT))
    parts = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), (X, Y, WEIGHT))
    step = fnn.train_step(objective, optimizer, axis_name="part")
    spread, _ = jax.vmap(step, in_axes=(None, 0), axis_name="part")(run, parts)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], spread.params), whole.params, atol=1e-6)
