"""The actor learns to balance better than a push at random, and advantages are what their definition says."""

import importlib
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

cart_pole = importlib.import_module("cart_pole")
reinforcement = importlib.import_module("reinforcement")


def test_advantages_are_discounted_sums_of_surprises_that_end_with_their_episode() -> None:
    draw = np.random.default_rng(0)
    value, value_after = draw.random((2, 9, 2))
    failed = draw.random((9, 2)) < 0.2
    done = failed | (draw.random((9, 2)) < 0.2)
    assert (done & ~failed).any()
    assert failed.any()
    seen = cart_pole.Transitions(*(jnp.zeros((9, 2)),) * 3, jnp.array(failed), jnp.array(done))
    found = reinforcement.advantages(jnp.array(value), jnp.array(value_after), seen, 0.9, 0.8)
    surprise = 0.1 + 0.9 * value_after * ~failed - value
    for cart in range(2):
        for step in range(9):
            wanted, weight = 0.0, 1.0
            for later in range(step, 9):
                wanted += weight * surprise[later, cart]
                weight *= 0.9 * 0.8
                if done[later, cart]:
                    break
            np.testing.assert_allclose(found[step, cart], wanted, rtol=1e-5)


def test_a_little_training_is_better_than_chance_and_the_rivals_are_in_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--seeds 3 --carts 15 --steps 17 --updates 60 --hidden 16 --learning-rate 0.01 --entropy 0.02 --episodes 20 "
        "--seed 1 --output"
    )
    monkeypatch.setattr(sys, "argv", ["reinforcement.py", *options.split(), str(tmp_path / "new")])
    runpy.run_path(str(reinforcement.__file__), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 networks of 755 parameters, 15 carts each, 60 updates of 17 steps"
    assert lines[1].startswith("45900 steps in ")
    table = {line[:30].strip(): line[30:].split() for line in lines[4:9]}
    assert list(table) == [*reinforcement.RULES, "actor, drawn", "actor, more probable"]
    random, leaning, steady, drawn, probable = table.values()
    assert 15 < float(random[0]) < 35
    assert float(random[0]) < float(leaning[0]) < 100
    assert steady == ["500.0", "100.0%"]
    for mean, worst, _ in (drawn, probable):
        assert 2 * float(random[0]) < float(mean)
        assert float(worst) <= float(mean)
    for name in ("curves.png", "policy.png"):
        assert (tmp_path / "new" / name).stat().st_size > 5_000


def test_a_curve_begins_where_its_first_episode_ends() -> None:
    figure = reinforcement.draw_curves(np.array([[np.nan, 10, 20], [np.nan, np.nan, 30]]), 1000, {"random": 23.0})
    (median,) = [line for line in figure.axes[0].lines if line.get_label() == "median of 2 seeds"]
    np.testing.assert_array_equal(median.get_xydata(), [[1, np.nan], [2, np.nan], [3, 25]])


def test_seeds_differ_and_one_seed_repeats_itself() -> None:
    train = reinforcement.trainer(
        reinforcement.network(4), carts=2, steps=8, updates=3, learning_rate=1e-2, entropy=0.0
    )  # fmt: skip
    params, curve = jax.jit(jax.vmap(train))(jax.random.wrap_key_data(jnp.array([[0, 1], [0, 2], [0, 1]], jnp.uint32)))
    assert curve.shape == (3, 3)
    for leaf in jax.tree.leaves(params):
        np.testing.assert_array_equal(leaf[0], leaf[2])
    kernel = params["actor"]["dense_0"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])
