"""Logs get what was measured, at the steps that were asked for."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training import logs

X, Y = np.ones((12, 2), np.float32), np.ones((12, 1), np.float32)
NET, OPTIMIZER = fnn.dense(1), optax.sgd(0.1)
OBJECTIVE = fnn.supervised(NET, optax.losses.squared_error)


def fit(**options: Any) -> Any:
    run = fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)
    return fnn.fit(OBJECTIVE, OPTIMIZER, run, (X, Y), batch_size=3, epochs=2, progress=False, **options)


def test_a_function_gets_every_epoch_and_every_so_many_steps() -> None:
    records: list[Any] = []
    _, history = fit(log=lambda step, values: records.append((step, values)), log_every=2, validation=(X, Y))
    assert [step for step, _ in records] == [2, 4, 4, 6, 8, 8]
    epochs = [values for _, values in records if "validation/loss" in values]
    assert [values["loss"] for values in epochs] == history["loss"].tolist()
    assert np.mean([records[0][1]["loss"], records[1][1]["loss"]]) == pytest.approx(epochs[0]["loss"])
    assert all(type(value) is float for _, values in records for value in values.values())


def test_several_logs_get_the_same(tmp_path: Path) -> None:
    fit(log=[fnn.jsonl_log(tmp_path / "a" / "log.jsonl"), fnn.csv_log(tmp_path / "a" / "log.csv")], log_every=4)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    with (tmp_path / "a" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == [4, 4, 8, 8]
    assert [float(row["loss"]) for row in rows] == [line["loss"] for line in lines]


def test_numbers_that_json_has_not_are_texts(tmp_path: Path) -> None:
    log = fnn.jsonl_log(tmp_path / "log")
    log(1, {"loss": float("nan")})
    assert json.loads((tmp_path / "log").read_text(), parse_constant=pytest.fail) == {"step": 1, "loss": "nan"}


def test_a_column_that_comes_later_goes_to_the_right(tmp_path: Path) -> None:
    log = fnn.csv_log(tmp_path / "log")
    log(1, {"a": 1.0})
    log(2, {"b": 2.0})
    fnn.csv_log(tmp_path / "log")(3, {"a": 3.0, "b": 4.0})
    assert (tmp_path / "log").read_text() == "step,a,b\n1,1.0,\n2,,2.0\n3,3.0,4.0\n"


def test_tensorboard_has_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    fit(log=fnn.tensorboard_log(tmp_path))
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"loss" in content


def test_norms_and_the_rate_are_measured_in_each_step() -> None:
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, 8))
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
    both = lambda *args: fnn.norms("kernel")(*args) | fnn.learning_rate(*args)
    step = jax.jit(fnn.train_step(OBJECTIVE, optimizer, watch=both))
    after, metrics = step(run, (X, Y))
    kernel = run.params["kernel"]
    assert metrics["parameter_norm/kernel"] == pytest.approx(float(jnp.linalg.norm(kernel)))
    grads = jax.grad(lambda params: OBJECTIVE(params, {}, (X, Y), key=None, train=True)[0])(run.params)
    assert metrics["gradient_norm/kernel"] == pytest.approx(float(jnp.linalg.norm(grads["kernel"])), rel=1e-5)
    moved = jnp.linalg.norm(after.params["kernel"] - kernel)
    assert metrics["update_norm/kernel"] == pytest.approx(float(moved), rel=1e-4)
    assert metrics["learning_rate"] == pytest.approx(0.1)
    _, history = fit(watch=fnn.norms())
    assert history["gradient_norm"][1] < history["gradient_norm"][0]


def test_log_every_may_be_longer_than_an_epoch() -> None:
    """It was counted within each epoch of four steps, so that only epochs were logged."""

    def losses(every: int) -> dict[int, float]:
        found: dict[int, float] = {}
        log = lambda step, values: None if "validation/loss" in values else found.update({step: values["loss"]})
        fit(log=log, log_every=every, validation=(X, Y))
        return found

    single, means = losses(1), losses(6)
    assert means == {6: pytest.approx(np.mean([single[step] for step in range(1, 7)]))}


def test_a_run_that_goes_on_logs_means_over_the_steps_before_too(tmp_path: Path) -> None:
    run = fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)
    whole, parts = [], []
    note = lambda records: lambda step, values: records.append((step, values["loss"]))
    arguments, options = (OBJECTIVE, OPTIMIZER, run, (X, Y)), {"batch_size": 3, "log_every": 3, "progress": False}
    fnn.fit(*arguments, **options, epochs=2, log=note(whole))

    def stop(step: int, values: Any) -> None:
        parts.append((step, values["loss"]))
        if step == 4:
            raise KeyboardInterrupt

    for log in (stop, note(parts)):
        fnn.fit(*arguments, **options, epochs=2, log=log, checkpoints=fnn.Checkpoints(tmp_path, every=2))
    assert dict(parts)[6] == dict(whole)[6]


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    for name, log in (("a", fnn.jsonl_log(tmp_path / "a")), ("b", fnn.csv_log(tmp_path / "b"))):
        log(1, {"loss": 0.5})
        (tmp_path / name).write_text((tmp_path / name).read_text() + "2,")
        log(3, {"loss": 0.25})
    assert json.loads((tmp_path / "a").read_text().splitlines()[-1]) == {"step": 3, "loss": 0.25}
    assert (tmp_path / "b").read_text() == "step,loss\n1,0.5\n2,\n3,0.25\n"


def test_a_crash_while_a_column_is_added_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table was opened for writing, and so empty, before its rows were written again."""
    log = fnn.csv_log(tmp_path / "log")
    log(1, {"a": 1.0})

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            log(2, {"b": 2.0})
    assert (tmp_path / "log").read_text() == "step,a\n1,1.0\n"
    log(2, {"b": 2.0})
    assert (tmp_path / "log").read_text() == "step,a,b\n1,1.0,\n2,,2.0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(("seconds", "slow"), [(30.0, True), (1.0, False)])
def test_a_log_that_takes_longer_than_the_training_is_told_once(
    seconds: float, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's own: a second between two looks at it, and more within the log."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    def lazy(step: int, values: Any) -> None:
        nonlocal now
        now += seconds - 1

    monkeypatch.setattr(logs, "perf_counter", clock)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(log=[lazy, lambda step, values: None], log_every=1)
    texts = [str(warning.message) for warning in found]
    assert len(texts) == slow
    assert all("<locals>.lazy took" in text and "while the device waited; log less often" in text for text in texts)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="log_every must be a positive number"):
        fit(log_every=0)
    with pytest.raises(ValueError, match="keeps no learning rate"):
        fit(watch=fnn.learning_rate)
