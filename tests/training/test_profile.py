"""A trace holds the steps of its window and no others."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fnn

X, Y = np.ones((12, 5), np.float32), np.ones((12, 1), np.float32)
NET, OPTIMIZER = fnn.serial(fnn.dense(8), jax.nn.relu, fnn.dense(1)), optax.sgd(0.1)
OBJECTIVE = fnn.supervised(NET, optax.losses.squared_error)
BATCHES = [(X[i : i + 3], Y[i : i + 3]) for i in range(0, 12, 3)]


def fit(data: Any = (X, Y), **options: Any) -> Any:
    run = fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)
    return fnn.fit(OBJECTIVE, OPTIMIZER, run, data, batch_size=3, epochs=3, progress=False, **options)


def events(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    return json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]


def how_often(folder: Path) -> set[int]:
    """How often each operation of a compiled step ran."""
    compiled = [event["name"] for event in events(folder) if "hlo_op" in event.get("args", {})]
    return set(Counter(name for name in compiled if "dot" in name).values())


@pytest.mark.parametrize("data", [(X, Y), BATCHES], ids=["arrays", "iterable"])
def test_the_steps_of_the_window_are_traced(data: Any, tmp_path: Path) -> None:
    """Of 12 steps, three to an epoch of four: the window begins in one epoch and ends in the next."""
    plain, _ = fit(data)
    run, _ = fit(data, profile=(2, 7, tmp_path / "trace"))
    assert how_often(tmp_path / "trace") == {5}
    steps = {int(event["args"]["step_num"]) for event in events(tmp_path / "trace") if event.get("name") == "steps"}
    assert min(steps) == 2
    assert max(steps) < 7
    assert (run.params["dense_0"]["kernel"] == plain.params["dense_0"]["kernel"]).all()


def test_it_lies_beside_the_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(profile=(4, 6), checkpoints=fnn.Checkpoints(tmp_path / "run"))
    assert how_often(tmp_path / "run" / "profile") == {2}
    monkeypatch.chdir(tmp_path)
    fit(profile=(4, 6))
    assert how_often(tmp_path / "profile") == {2}


def test_a_run_that_ends_within_the_window_writes_it(tmp_path: Path) -> None:
    fit(profile=(10, 100, tmp_path))
    assert how_often(tmp_path) == {2}
    x = X.copy()
    x[:] = np.nan
    with pytest.raises(fnn.NonFiniteError):
        fit((x, Y), profile=(0, 100, tmp_path / "bad"))
    assert how_often(tmp_path / "bad")


def test_a_run_that_goes_on_after_the_window_traces_nothing(tmp_path: Path) -> None:
    fit(profile=(4, 6), checkpoints=fnn.Checkpoints(tmp_path / "run"))
    again = fnn.Checkpoints(tmp_path / "run")
    fit(profile=(4, 6, tmp_path / "again"), checkpoints=again)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("window", [(3, 3), (5, 2), (-1, 4)])
def test_windows_without_steps_are_told(window: Any) -> None:
    with pytest.raises(ValueError, match=r"must be \(start, stop\) with 0 <= start < stop, got"):
        fit(profile=window)


def test_a_window_after_the_end_is_told() -> None:
    with pytest.raises(ValueError, match="profile begins at step 12, and the run ends after step 11"):
        fit(profile=(12, 14))
