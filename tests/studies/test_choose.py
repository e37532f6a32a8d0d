"""How a study chooses what to run side by side; what it costs to find out decides whether it does."""

import os
from pathlib import Path
from typing import Any

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


def test_both_are_tried_where_that_can_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    said = chosen(monkeypatch, WORTH=0)
    first, _, rest = said.partition(", ")
    ratio, _, second = rest.partition(" times as fast as ")
    assert {first, second} == {"3 networks side by side", "one network after another"}
    assert float(ratio) >= 1


def test_a_few_runs_go_one_after_another() -> None:
    assert study([{"learning_rate": 0.1}], mode="auto", width="auto").remarks[-1] == "one network after another"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("memory.max", "1048576\n", 2**20),
        ("memory.max", "max\n", 2**30),
        ("memory.max", f"{2**40}\n", 2**30),
        ("memory/memory.limit_in_bytes", "2097152\n", 2**21),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 2**30),
        ("other", "", 2**30),
    ],
)
def test_a_container_has_the_memory_of_its_cgroup(
    name: str, text: str, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study in a container counted on all the memory of the machine."""
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 2**12}.__getitem__, raising=False)
    (tmp_path / "memory").mkdir()
    (tmp_path / name).write_text(text)
    assert choose.host_memory(tmp_path) == wanted


def test_a_study_runs_where_the_system_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, which lacks os.sysconf, every study failed with an AttributeError."""
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert chosen(monkeypatch, WORTH=1e9) == "3 networks side by side"


def example(width: int) -> Any:
    numbers = np.zeros(width, np.int32)
    return Place({"learning_rate": np.full(width, 0.1, np.float32)}, numbers, numbers, numbers + 1000)


def test_a_bound_is_enough_until_a_longer_study_asks_for_more() -> None:
    made, table = Program(trial, {}, 8, "validation/loss", -1, False), make_table((X, Y), None, 2, [0])[0]
    loop = engine.Engine(made, "loop", 1, table, KEY).prepare(example(1))
    bound = choose._seconds(loop, example(1), 4, least=float("inf"))
    assert loop.advancing.tried == (bound, False)
    assert choose._seconds(loop, example(1), 4, least=2 * bound) == bound
    found = choose._seconds(loop, example(1), 4, least=0)
    assert loop.advancing.tried == (found, True)
    assert choose._seconds(loop, example(1), 4, least=0) == found
