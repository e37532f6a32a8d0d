"""Gradients go through training, tasks are what they should be, and MAML adapts better than its rivals."""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

few_shot = importlib.import_module("few_shot")
meta_learning = importlib.import_module("meta_learning")


def read_table(printed: str) -> dict[str, list[float]]:
    """The errors after 0, 1, 5 and 10 steps by method, and one error of the nearest mean."""
    names = (*meta_learning.METHODS, "nearest class mean")
    lines = [line for line in printed.splitlines() if line.startswith(names) and ":" not in line]
    return {line[:20].strip(): [float(cell) for cell in line[20:].split()[:4]] for line in lines}


def test_maml_adapts_to_a_sine_and_its_rivals_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = meta_learning.main(updates=1000, tasks=10, test_tasks=50, seeds=2, output=tmp_path)
    table = read_table(capsys.readouterr().out)
    assert tuple(table) == meta_learning.METHODS
    assert table["MAML"][3] < 0.8 * min(table["joint training"][3], table["from scratch"][3])
    # the mean square of a sine whose amplitude is uniform from 0.1 to 5, over whole periods: 8.5 / 2
    assert table["joint training"][0] < 4.25
    assert {name: round(value, 4) for name, value in found.items()} == {name: row[3] for name, row in table.items()}
    for name in ("sines_steps.png", "sines_adaptation.png"):
        assert (tmp_path / name).stat().st_size > 5_000


def test_unseen_digits_are_told_apart_better_than_by_chance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--data digits --updates 60 --tasks 4 --shots 4 --ways 2 --steps 10 --seeds 2 --first-order --test-tasks 30 "
        "--seed 1 --output"
    )
    monkeypatch.setattr(sys, "argv", ["meta_learning.py", *options.split(), str(tmp_path / "new")])
    runpy.run_path(str(meta_learning.__file__), run_name="__main__")
    printed = capsys.readouterr().out
    assert "digits: 60 updates of 4 tasks, 2 steps of adaptation each, first order" in printed
    table = read_table(printed)
    assert table["nearest class mean"][0] < 0.2
    assert table["MAML"][3] < 0.25 < 0.4 < table["MAML"][0]  # chance is wrong every other time
    assert table["joint training"][0] == 0.5  # its last layer is zeros
    assert (tmp_path / "new" / "digits_steps.png").stat().st_size > 5_000


def test_classes_and_images_are_held_out_and_every_class_of_a_task_has_its_shots() -> None:
    problem = few_shot.digits(2, 4, 3, seed=0)
    train, validation, test = ({image.tobytes() for image in pool[0].reshape(-1, 64)} for pool in problem.pools)
    assert not train & validation
    assert not train & test
    assert not validation & test
    task = problem.draw(jax.random.key(0), jnp.asarray(problem.pools[2][0]), 6)
    for (x, y), count in ((task.support, 4), (task.query, 6)):
        assert x.shape == (3 * count, 64)
        np.testing.assert_array_equal(np.bincount(y), [count] * 3)
    images = {np.asarray(image).tobytes() for part in (task.support, task.query) for image in part[0]}
    assert images <= test
    own = problem.draw_joint(jax.random.key(0), jnp.asarray(problem.pools[0][0]), 6)
    assert len(np.unique(own.support[1])) == 3


def test_a_sine_has_the_amplitude_and_phase_of_its_task() -> None:
    problem = few_shot.sines(1, 10)
    tasks = jax.vmap(lambda key: problem.draw(key, None, 20))(jax.random.split(jax.random.key(0), 50))
    assert tasks.support[0].shape == (50, 10, 1)
    assert tasks.query[0].shape == (50, 20, 1)
    for x, y in zip(*map(np.asarray, tasks.query)):
        basis = np.concatenate([np.sin(x), np.cos(x)], axis=1)
        (sin, cos), *_ = np.linalg.lstsq(basis, y[:, 0])
        np.testing.assert_allclose(basis @ [sin, cos], y[:, 0], atol=1e-4)
        assert 0.1 <= np.hypot(sin, cos) <= 5
        assert cos <= 1e-4  # a sin(x - phase) with a phase from 0 to pi


def test_the_gradient_through_adaptation_is_that_of_the_formula() -> None:
    # One weight w, y = w x, squared error on one pair (x, t): a step of rate r leads to w - 2 r x (w x - t), so that
    # the loss after it depends on w by a factor 1 - 2 r x². First order leaves the factor out.
    net = fnn.dense(1, bias=False)
    problem: Any = few_shot.sines(1, 1)._replace(net=net)
    support, query = (jnp.array([[2.0]]), jnp.array([[1.0]])), (3.0, 5.0)
    for first_order, factor in ((False, 1 - 2 * 0.1 * 4), (True, 1.0)):

        def loss(params: Any, first_order: bool = first_order) -> jax.Array:
            adapted, _ = meta_learning.adapt(problem, params, support, 1, 0.1, first_order=first_order)
            return (adapted["kernel"][0, 0] * query[0] - query[1]) ** 2

        params = {"kernel": jnp.array([[0.7]])}
        after = 0.7 - 2 * 0.1 * 2 * (0.7 * 2 - 1)
        wanted = 2 * query[0] * (after * query[0] - query[1]) * factor
        np.testing.assert_allclose(jax.grad(loss)(params)["kernel"][0, 0], wanted, rtol=1e-5)
