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
    """Means over two steps and means over the epoch were both called loss, in two records of one step."""
    records: list[Any] = []
    _, history = fit(log=lambda step, values: records.append((step, values)), log_every=2, validation=(X, Y))
    assert [step for step, _ in records] == [2, 4, 6, 8]
    assert [sorted(values) for _, values in records] == [["loss"], ["epoch/loss", "loss", "validation/loss"]] * 2
    for number, epoch in enumerate((records[1][1], records[3][1])):
        assert epoch["epoch/loss"] == history["loss"][number]
        assert epoch["validation/loss"] == history["validation/loss"][number]
        assert np.mean([records[2 * number][1]["loss"], epoch["loss"]]) == pytest.approx(epoch["epoch/loss"])
    assert all(type(value) is float for _, values in records for value in values.values())


def test_without_log_every_an_epoch_has_the_names_of_the_history() -> None:
    records: list[Any] = []
    _, history = fit(log=lambda step, values: records.append((step, values)), validation=(X, Y))
    assert [step for step, _ in records] == [4, 8]
    assert [values["loss"] for _, values in records] == history["loss"].tolist()
    assert all(sorted(values) == ["loss", "validation/loss"] for _, values in records)


def test_an_epoch_between_two_records_is_one_of_its_own() -> None:
    records: list[Any] = []
    fit(log=lambda step, values: records.append((step, sorted(values))), log_every=3)
    epoch = ["epoch/loss"]
    assert records == [(3, ["loss"]), (4, epoch), (6, ["loss"]), (8, epoch)]


def test_several_logs_get_the_same(tmp_path: Path) -> None:
    fit(log=[fnn.jsonl_log(tmp_path / "a" / "log.jsonl"), fnn.csv_log(tmp_path / "a" / "log.csv")], log_every=2)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    with (tmp_path / "a" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert [sorted(line) for line in lines] == [["loss", "step"], ["epoch/loss", "loss", "step"]] * 2
    assert [{name: float(text) for name, text in row.items() if text} for row in rows] == lines


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


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """What event files hold: each record has its length, a checksum of that, the event, and a checksum of it."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    found: list[tuple[str, int, float]] = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def test_tensorboard_has_every_scalar_on_disk_when_the_call_returns(tmp_path: Path) -> None:
    """The values went through the queue of a thread, which nothing waited for."""
    pytest.importorskip("tensorboardX")
    first, second = fnn.tensorboard_log(tmp_path / "a" / "b"), fnn.tensorboard_log(tmp_path / "a" / "b")
    for step in range(3):
        first(step, {"loss": step / 2, "validation/loss": 1.0})
        written = [("loss", number, number / 2) for number in range(step + 1)]
        assert [scalar for scalar in scalars(tmp_path / "a" / "b") if scalar[0] == "loss"] == written
    second(3, {"loss": 4.0})  # in the same second, under another name
    assert len(scalars(tmp_path / "a" / "b")) == 7


def test_tensorboard_has_one_value_for_each_tag_and_step(tmp_path: Path) -> None:
    """The curve of the loss had a second value, the mean over the epoch, at each epoch's end."""
    pytest.importorskip("tensorboardX")
    fit(log=fnn.tensorboard_log(tmp_path), log_every=2, validation=(X, Y))
    found = [(tag, step) for tag, step, _ in scalars(tmp_path)]
    assert len(found) == len(set(found))
    assert [step for tag, step in found if tag == "loss"] == [2, 4, 6, 8]
    assert [step for tag, step in found if tag == "epoch/loss"] == [4, 8]
    assert [step for tag, step in found if tag == "validation/loss"] == [4, 8]


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
        log = lambda step, values: found.update({step: values["loss"]} if "loss" in values else {})
        fit(log=log, log_every=every, validation=(X, Y))
        return found

    single, means = losses(1), losses(6)
    assert means == {6: pytest.approx(np.mean([single[step] for step in range(1, 7)]))}


def test_a_run_that_goes_on_logs_means_over_the_steps_before_too(tmp_path: Path) -> None:
    run = fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)
    whole, parts = [], []
    note = lambda records: lambda step, values: records.append((step, values.get("loss")))
    arguments, options = (OBJECTIVE, OPTIMIZER, run, (X, Y)), {"batch_size": 3, "log_every": 3, "progress": False}
    fnn.fit(*arguments, **options, epochs=2, log=note(whole))

    def stop(step: int, values: Any) -> None:
        parts.append((step, values.get("loss")))
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
    with pytest.raises(ValueError, match="log_every must be at least 1, got 0"):
        fit(log_every=0)
    with pytest.raises(ValueError, match="keeps no learning rate"):
        fit(watch=fnn.learning_rate)
