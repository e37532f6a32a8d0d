"""A loop of one's own that is kept in a folder."""

import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)).astype(np.float32), RNG.normal(size=(20, 1)).astype(np.float32)
NET, OPTIMIZER = fnn.serial(fnn.dense(4), fnn.dropout(0.2), fnn.dense(1)), optax.adam(1e-2)
STEP = fnn.train_step(fnn.supervised(NET, optax.losses.squared_error), OPTIMIZER)
START = fnn.train_init(NET, OPTIMIZER, jax.random.key(0), X)
BATCHES = fnn.batches((X, Y), 4, key=jax.random.key(1), epochs=2)


def train(folder: Path | None, stop: int | None = None, batches: Any = BATCHES, **settings: Any) -> list[fnn.Report]:
    """All reports; ``stop``: leave the loop after so many steps."""
    checkpoints = None if folder is None else fnn.Checkpoints(folder, **settings)
    reports: list[fnn.Report] = []
    for report in fnn.training(STEP, START, batches, every=1, checkpoints=checkpoints):
        reports.append(report)
        if int(report.run.step) == stop:
            break
    return reports


def bits(report: fnn.Report) -> list[bytes]:
    leaves = jax.tree.leaves(report._replace(run=report.run._replace(key=jax.random.key_data(report.run.key))))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


@pytest.fixture(scope="module")
def whole() -> list[list[bytes]]:
    return [bits(report) for report in train(None)]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("batches", [BATCHES, list(BATCHES)], ids=["arrays", "iterable"])
def test_it_goes_on_in_the_same_bits_from_any_step(batches: Any, background: bool, tmp_path: Path) -> None:
    expected = [bits(report) for report in train(None, batches=batches)]
    for stop in range(1, 10):
        folder = tmp_path / str(stop)
        train(folder, stop, batches, every=1, background=background)
        reports = train(folder, None, batches, every=1, background=background)
        assert [bits(report) for report in reports] == expected[stop - 1 :]


def test_batches_of_tensors_are_saved_too(tmp_path: Path) -> None:
    """What a step computes was traced for the tensors themselves, which JAX does not take."""
    torch = pytest.importorskip("torch")
    batches = [tuple(torch.tensor(np.asarray(leaf)) for leaf in batch) for batch in BATCHES]
    reports = train(tmp_path, batches=batches, every=10)
    assert int(reports[-1].run.step) == 10
    expected = [bits(report) for report in train(None, batches=list(BATCHES))]
    assert [bits(report) for report in train(tmp_path, batches=list(BATCHES), every=10)] == expected[-1:]


def test_saving_changes_nothing(whole: list[list[bytes]], tmp_path: Path) -> None:
    assert [bits(report) for report in train(tmp_path, every=3)] == whole


def test_reports_end_where_they_are_saved_and_the_last_is_saved_too(tmp_path: Path) -> None:
    checkpoints = fnn.Checkpoints(tmp_path, keep=9, every=4)
    reports = list(fnn.training(STEP, START, BATCHES, every=3, checkpoints=checkpoints))
    assert [report.steps for report in reports] == [3, 1, 1, 3, 2]
    assert checkpoints.steps() == [4, 8, 10]


def test_without_a_number_of_steps_each_epoch_is_saved(tmp_path: Path) -> None:
    train(tmp_path, keep=9)
    assert fnn.Checkpoints(tmp_path).steps() == [5, 10]
    with pytest.raises(ValueError, match=r"after how many steps to save: fnn.Checkpoints\(every="):
        train(tmp_path, batches=list(BATCHES))


def test_a_finished_loop_gives_its_last_report(whole: list[list[bytes]], tmp_path: Path) -> None:
    train(tmp_path)
    assert [bits(report) for report in train(tmp_path)] == whole[-1:]


def test_more_epochs_go_on(tmp_path: Path) -> None:
    more = fnn.batches((X, Y), 4, key=jax.random.key(1), epochs=3)
    train(tmp_path)
    assert bits(train(tmp_path, batches=more)[-1]) == bits(train(None, batches=more)[-1])


def test_the_best_report_stays(tmp_path: Path) -> None:
    losses = [float(report.metrics["loss"][0]) for report in train(tmp_path, keep=1, every=1, minimize="loss")]
    best = int(np.argmin(losses)) + 1
    assert fnn.Checkpoints(tmp_path, minimize="loss").best_step() == best < 10


def test_sigterm_finishes_the_step_and_saves_it(whole: list[list[bytes]], tmp_path: Path) -> None:
    reports = fnn.training(STEP, START, BATCHES, checkpoints=fnn.Checkpoints(tmp_path))
    seen = [bits(next(reports))]
    before = signal.getsignal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        seen += [bits(report) for report in reports]
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) != before
    assert fnn.Checkpoints(tmp_path).steps() == [2]
    assert seen + [bits(report) for report in train(tmp_path)] == whole


@pytest.mark.parametrize("batches", [BATCHES, list(BATCHES)], ids=["arrays", "iterable"])
def test_another_step_is_reported_and_another_name_is_not(batches: Any, tmp_path: Path) -> None:
    """A step was known by its name: another one went on in silence, and a renamed one was refused."""
    train(tmp_path, 5, batches, every=5)

    def again(step: Any, **options: Any) -> list[fnn.Report]:
        checkpoints = fnn.Checkpoints(tmp_path, every=5)
        return list(fnn.training(step, START, batches, checkpoints=checkpoints, **options))

    doubled = lambda factor: fnn.supervised(NET, lambda y, target: factor * (y - target) ** 2)
    other = fnn.train_step(doubled(2.0), OPTIMIZER)
    with pytest.raises(fnn.MisfitError, match=r"program +\w{16} +\w{16}"):
        again(other, resume="strict")
    with pytest.warns(fnn.CheckpointWarning, match=r"program +\w{16} +\w{16}"):
        assert again(other)[-1].run.step == 10
    renamed = lambda run, batch: other(run, batch)
    assert len(again(renamed, resume="strict")) == 1


def test_another_loop_is_refused_with_what_differs(tmp_path: Path) -> None:
    train(tmp_path, 5)
    with pytest.raises(fnn.MisfitError, match=r"batch size +5 +4"):
        train(tmp_path, batches=fnn.batches((X, Y), 5, key=jax.random.key(1)))
    with pytest.raises(fnn.MisfitError, match="rows"):
        train(tmp_path, batches=fnn.batches((X + 1, Y), 4, key=jax.random.key(1)))
    with pytest.raises(fnn.MisfitError, match="order of the rows"):
        train(tmp_path, batches=fnn.batches((X, Y), 4, key=jax.random.key(2)))
    other = fnn.train_init(fnn.dense(1), OPTIMIZER, jax.random.key(0), X)
    step = fnn.train_step(fnn.supervised(fnn.dense(1), optax.losses.squared_error), OPTIMIZER)
    with pytest.raises(fnn.MisfitError, match="run/params/kernel"):
        list(fnn.training(step, other, BATCHES, checkpoints=fnn.Checkpoints(tmp_path)))
