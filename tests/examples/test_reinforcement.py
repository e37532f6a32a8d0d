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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = reinforcement.main(seeds=3, updates=60, hidden=16, learning_rate=1e-2, episodes=20, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 networks of 723 parameters, 16 carts each, 60 updates of 16 steps"
    assert lines[1].startswith("46080 steps in ")
    table = {line[:30].strip(): line[30:].split() for line in lines[4:9]}
    assert list(table) == [*reinforcement.RULES, "actor, drawn", "actor, more probable"]
    random, leaning, steady, drawn, probable = table.values()
    assert 15 < float(random[0]) < 35
    assert float(random[0]) < float(leaning[0]) < 100
    assert steady == ["500.0", "100.0%"]
    assert float(drawn[0]) > 2 * float(random[0])
    assert float(probable[0]) == round(found, 1) > 2 * float(random[0])
    assert float(probable[1]) <= float(probable[0])
    for name in ("curves.png", "policy.png"):
        assert (tmp_path / name).stat().st_size > 5_000


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


def test_the_script_reads_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--seeds 1 --carts 2 --steps 4 --updates 2 --hidden 3 --learning-rate 0.1 --entropy 0.1 --episodes 2 --seed 1"
    )
    monkeypatch.setattr(sys, "argv", ["reinforcement.py", *options.split(), "--output", str(tmp_path / "new")])
    runpy.run_path(str(reinforcement.__file__), run_name="__main__")
    assert "1 networks of 58 parameters, 2 carts each, 2 updates of 4 steps" in capsys.readouterr().out
    assert (tmp_path / "new" / "policy.png").is_file()
