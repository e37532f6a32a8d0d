"""How a study chooses what to run side by side; what it costs to find out decides whether it does."""

from typing import Any

import jax
import numpy as np
import pytest

from fnn.studies import choose, engine
from fnn.studies.settings import make_table
from fnn.studies.trial import Place, Program
from tests.studies.small import KEY, X, Y, study, trial


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "cores", lambda: 2)


def chosen(monkeypatch: pytest.MonkeyPatch, **limits: float) -> str:
    """What a study says of its choice, with other limits."""
    for name, value in limits.items():
        monkeypatch.setattr(choose, name, value)
    return study(mode="auto", width="auto").remarks[-1]


def test_nothing_else_is_tried_where_training_is_shorter_than_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, WORTH=1e9) == "3 networks side by side"


def test_networks_with_much_to_compute_go_one_after_another_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, WORTH=1e9, HEAVY=100) == "one network after another"


@pytest.mark.parametrize("heavy", [100, 1e9])
def test_both_are_tried_where_that_can_pay(monkeypatch: pytest.MonkeyPatch, heavy: float) -> None:
    names = {"3 networks side by side", "one network after another"}
    said = chosen(monkeypatch, WORTH=0, HEAVY=heavy)
    first, _, rest = said.partition(", ")
    ratio, _, second = rest.partition(" times as fast as ")
    assert {first, second} == names
    assert float(ratio) >= 1


def test_a_few_runs_go_one_after_another() -> None:
    assert study([{"learning_rate": 0.1}], mode="auto", width="auto").remarks[-1] == "one network after another"


def example(width: int) -> Any:
    numbers = np.zeros(width, np.int32)
    return Place({"learning_rate": np.full(width, 0.1, np.float32)}, numbers, numbers, numbers + 1000)


def program() -> tuple[Program, Any]:
    return Program(trial, {}, 8, "validation/loss", -1, False), make_table((X, Y), None, 2, [0])[0]


def test_a_bound_is_enough_until_a_longer_study_asks_for_more() -> None:
    made, table = program()
    loop = engine.Engine(made, "loop", 1, table, KEY).prepare(example(1))
    bound = choose._seconds(loop, example(1), 4, least=float("inf"))
    assert loop.advancing.tried == (bound, False)
    assert choose._seconds(loop, example(1), 4, least=2 * bound) == bound
    found = choose._seconds(loop, example(1), 4, least=0)
    assert loop.advancing.tried == (found, True)
    assert choose._seconds(loop, example(1), 4, least=0) == found


def test_operations_are_those_of_the_loss_of_a_batch() -> None:
    made, table = program()
    products = 2 * 8 * (3 * 4 + 4 * 1)
    assert products < made.operations(example(1), table) < 2 * products


def test_operations_are_those_of_what_augmentation_makes() -> None:
    def doubled(key: jax.Array, batch: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.numpy.concatenate([leaf, leaf]), batch)

    made, table = program()
    twice = Program(lambda hp: (*trial(hp), doubled), {}, 8, "validation/loss", -1, False)
    ratio = twice.operations(example(1), table) / made.operations(example(1), table)
    assert ratio == pytest.approx(2, rel=0.05)
