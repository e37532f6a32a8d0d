"""XOR is learned from any seed by a hidden layer, and by no single layer."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

xor = importlib.import_module("xor")


def test_all_four_answers_come_close_and_the_table_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deviation = xor.main(output=tmp_path)
    assert deviation < 0.1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"largest deviation: {deviation:.4f}"
    table = np.array([[float(cell) for cell in line.split()] for line in lines[2:6]])
    np.testing.assert_array_equal(table[:, 2], [0, 1, 1, 0])
    np.testing.assert_allclose(table[:, 4], table[:, 2], atol=0.1)
    assert np.abs(table[:, 3] - table[:, 2]).max() > 0.4
    for name in ("surface.png", "loss.png"):
        assert (tmp_path / name).stat().st_size > 5_000


def test_ten_of_ten_seeds_learn_xor() -> None:
    net, optimizer = xor.network(), optax.sgd(0.2)

    @jax.jit
    @jax.vmap
    def deviation(seed: jax.Array) -> jax.Array:
        run = fnn.train_init(net, optimizer, jax.random.key(seed), xor.X)
        run, _ = xor.train(net, run, optimizer, 2000)
        return jnp.abs(net.apply(run.params, run.state, xor.X)[0] - xor.TARGET).max()

    assert (deviation(jnp.arange(10)) < 0.1).all()


def test_a_single_layer_can_only_answer_one_half() -> None:
    net, optimizer = fnn.dense(1), optax.sgd(0.2)
    run, losses = xor.train(net, fnn.train_init(net, optimizer, jax.random.key(0), xor.X), optimizer, 500)
    np.testing.assert_allclose(net.apply(run.params, run.state, xor.X)[0], 0.5, atol=1e-4)
    np.testing.assert_allclose(losses[-1], 0.25, atol=1e-6)
