"""A run that is stopped anywhere and started again ends in the same bits; one of other data or shapes is refused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training import job

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 3)).astype(np.float32)
Y = RANDOM.normal(size=(20, 1)).astype(np.float32)
NET = fnn.serial(fnn.dense(4), fnn.batch_norm(), jnp.tanh, fnn.dropout(0.5), fnn.dense(1))
OBJECTIVE = fnn.supervised(NET, optax.losses.squared_error)
OPTIMIZER = optax.adam(0.1)
RULE = fnn.early_stopping(2, minimize="loss")
BATCHES = [(X[i : i + 4], Y[i : i + 4]) for i in range(0, 20, 4)]


class Killed(Exception):  # noqa: N818 - it is no error
    pass


def start() -> fnn.TrainState:
    return fnn.train_init(NET, OPTIMIZER, jax.random.key(1), X)


def fit(folder: Path | None = None, *, data: Any = (X, Y), every: int | None = 1, **options: Any) -> Any:
    checkpoints = None if folder is None else fnn.Checkpoints(folder, keep=2, every=every)
    settings = {"batch_size": 4, "epochs": 3, "validation": (X, Y), "early_stopping": RULE} | options
    return fnn.fit(OBJECTIVE, OPTIMIZER, start(), data, checkpoints=checkpoints, progress=False, **settings)


def bits(found: Any) -> list[bytes]:
    run, history = found
    leaves = jax.tree.leaves(run._replace(key=jax.random.key_data(run.key)))
    return [np.asarray(leaf).tobytes() for leaf in [*leaves, *history.values()]]


def killed_after(steps: int, folder: Path, patch: pytest.MonkeyPatch, **options: Any) -> None:
    """Stop the run as if the process had died right after so many steps were saved."""
    save = fnn.Checkpoints.save

    def dying(self: fnn.Checkpoints, step: int, *args: Any, **more: Any) -> None:
        save(self, step, *args, **more)
        if step == steps:
            raise Killed

    with patch.context() as context:
        context.setattr(fnn.Checkpoints, "save", dying)
        with pytest.raises(Killed):
            fit(folder, **options)


@pytest.fixture(scope="module")
def uninterrupted() -> list[bytes]:
    return bits(fit())


@pytest.mark.parametrize("data", [(X, Y), BATCHES], ids=["arrays", "iterable"])
def test_checkpoints_change_nothing(data: Any, tmp_path: Path) -> None:
    assert bits(fit(tmp_path, data=data)) == bits(fit(data=data))


@pytest.mark.parametrize("steps", range(1, 15))
def test_a_run_killed_at_any_step_ends_the_same(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: list[bytes]
) -> None:
    killed_after(steps, tmp_path, monkeypatch)
    assert bits(fit(tmp_path)) == uninterrupted


@pytest.mark.parametrize("steps", [3, 5, 8])
def test_so_does_one_over_an_iterable(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_after(steps, tmp_path, monkeypatch, data=BATCHES)
    assert bits(fit(tmp_path, data=BATCHES)) == bits(fit(data=BATCHES))


def test_a_finished_run_is_given_back(tmp_path: Path, uninterrupted: list[bytes]) -> None:
    first = bits(fit(tmp_path, every=None))
    assert first == bits(fit(tmp_path, every=None)) == uninterrupted


def test_the_columns_of_a_history_keep_their_order(tmp_path: Path) -> None:
    """Those before the restart were sorted by name, as a file sorts them, and the loss was no longer the first."""
    objective = fnn.supervised(NET, optax.losses.squared_error, metrics={"absolute": lambda y, t: jnp.abs(y - t)})
    again = lambda epochs: fnn.fit(
        objective,
        OPTIMIZER,
        start(),
        (X, Y),
        batch_size=4,
        epochs=epochs,
        checkpoints=fnn.Checkpoints(tmp_path),
        progress=False,
    )
    _, first = again(1)
    assert list(first) == list(again(2)[1]) == ["loss", "absolute", "step"]


def test_more_epochs_go_on(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1, early_stopping=None)
    assert bits(fit(tmp_path, epochs=3, early_stopping=None)) == bits(fit(epochs=3, early_stopping=None))


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    rule = fnn.early_stopping(1, minimize="step")
    run, history = fit(tmp_path, epochs=5, early_stopping=rule)
    again, more = fit(tmp_path, epochs=5, early_stopping=rule)
    assert history["step"].tolist() == more["step"].tolist() == [5, 10]
    assert int(run.step) == int(again.step) == 5


def test_damage_costs_only_the_steps_since(tmp_path: Path, uninterrupted: list[bytes], monkeypatch: Any) -> None:
    killed_after(7, tmp_path, monkeypatch)
    newest = max(tmp_path.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-5])
    with pytest.warns(fnn.CheckpointWarning, match="an older checkpoint is taken"):
        assert bits(fit(tmp_path)) == uninterrupted


OTHERS = {
    "batch size": ({"batch_size": 5}, r"batch size +5 +4"),
    "rows": ({"data": (X + 1, Y)}, r"rows +\w{8} +\w{8}"),
    "data": ({"data": (X[:16], Y[:16])}, r"data +.*16.*20"),
}


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS)
def test_other_data_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    with pytest.raises(fnn.MisfitError, match=message):
        fit(tmp_path, **options)


def test_other_shapes_of_parameters_and_optimizer_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1, early_stopping=None)

    def again(net: fnn.Layer, optimizer: optax.GradientTransformation) -> None:
        run = fnn.train_init(net, optimizer, jax.random.key(1), X)
        objective = fnn.supervised(net, optax.losses.squared_error)
        fnn.fit(objective, optimizer, run, (X, Y), batch_size=4, checkpoints=fnn.Checkpoints(tmp_path), progress=False)

    with pytest.raises(fnn.MisfitError, match=r"opt_state/0 +TraceState +ScaleByAdamState"):
        again(NET, optax.sgd(0.1, momentum=0.9))
    with pytest.raises(fnn.MisfitError, match=r"run/params/dense_0/kernel +float32\[3,1\] +float32\[3,4\]"):
        again(fnn.serial(fnn.dense(1)), OPTIMIZER)


def squared(factor: float) -> Any:
    return fnn.supervised(NET, lambda y, target: factor * jnp.mean((y - target) ** 2, -1))


def renamed(factor: float) -> Any:
    def another_name(output: Any, truth: Any) -> Any:
        return factor * jnp.mean((output - truth) ** 2, -1)

    return fnn.supervised(NET, another_name)


def resumed(folder: Path, objective: Any, data: Any = (X, Y), **options: Any) -> Any:
    checkpoints = fnn.Checkpoints(folder)
    options = {"batch_size": 4, "progress": False, "checkpoints": checkpoints, "optimizer": OPTIMIZER} | options
    return fnn.fit(objective, options.pop("optimizer"), options.pop("run", None) or start(), data, **options)


@pytest.mark.parametrize("data", [(X, Y), BATCHES], ids=["arrays", "iterable"])
def test_another_loss_of_the_same_name_is_noticed(data: Any, tmp_path: Path) -> None:
    """A loss was known by its name: one that was 1000 times as large went on in silence."""
    resumed(tmp_path, squared(1.0), data)
    with pytest.raises(fnn.MisfitError, match=r"program +\w{16} +\w{16}\n"):
        resumed(tmp_path, squared(1000.0), data, epochs=2, resume="strict")
    with pytest.warns(
        fnn.CheckpointWarning, match=r"code or configuration has changed\n.*\n +program +\w{16} +\w{16}\n"
    ):
        _, history = resumed(tmp_path, squared(1000.0), data, epochs=2)
    assert len(history["loss"]) == 2
    _, history = resumed(tmp_path, squared(1000.0), data, epochs=3, resume="strict")  # that is now the run's loss
    assert history["loss"][2] > 10 * history["loss"][0]


@pytest.mark.parametrize("data", [(X, Y), BATCHES], ids=["arrays", "iterable"])
def test_the_same_loss_of_another_name_goes_on(data: Any, tmp_path: Path) -> None:
    """A renamed function was another run, and refused."""
    resumed(tmp_path, squared(1.0), data)
    resumed(tmp_path, renamed(1.0), data, epochs=2, resume="strict")


OTHER = fnn.serial(fnn.dense(4), fnn.batch_norm(), jnp.tanh, fnn.dropout(0.25), fnn.dense(1))
CHANGES: dict[str, Any] = {
    "network": (
        {"objective": fnn.supervised(OTHER, optax.losses.squared_error)},
        r"network/dropout_0 +dropout.rate=0.25.* +dropout.rate=0.5",
    ),
    "optimizer": ({"optimizer": optax.adam(0.01)}, r"program +\w{16} +\w{16}"),
    "augmentation": ({"augment": lambda key, batch: (batch[0] * 2, batch[1])}, r"augment +.*lambda.* -"),
    "metrics": (
        {"objective": fnn.supervised(NET, optax.losses.squared_error, metrics={"error": fnn.absolute_error})},
        r"metrics +\['error'\] +\[\]",
    ),
    "validation": ({"validation": (X, Y)}, r"validation +True +-"),
    "early stopping": ({"early_stopping": RULE}, r"early stopping +EarlyStopping.* -"),
}


@pytest.mark.parametrize(("options", "table"), CHANGES.values(), ids=CHANGES)
def test_changes_of_code_and_configuration_are_reported(options: Any, table: str, tmp_path: Path) -> None:
    """Adding early stopping, or an augmentation, was refused."""
    options = {"objective": OBJECTIVE, "epochs": 2} | options
    resumed(tmp_path, OBJECTIVE)
    with pytest.raises(fnn.MisfitError, match=table):
        resumed(tmp_path, **options, resume="strict")
    with pytest.warns(fnn.CheckpointWarning, match=table):
        run, history = resumed(tmp_path, **options)
    assert int(run.step) == 10
    assert all(len(values) == 2 for values in history.values())


def test_another_version_of_jax_is_named_where_the_program_differs(tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.0.1")
        resumed(tmp_path, squared(1.0))
    resumed(tmp_path, squared(1.0), epochs=2, resume="strict")
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.0.2")
        with pytest.warns(fnn.CheckpointWarning, match=r"traced by JAX [0-9.]+, now by JAX 0.0.2; that may be all"):
            resumed(tmp_path, squared(2.0), epochs=3)


def test_early_stopping_that_is_added_begins_where_the_run_goes_on(tmp_path: Path) -> None:
    resumed(tmp_path, OBJECTIVE, epochs=2)
    rule = fnn.early_stopping(1, minimize="step")  # the first epoch is best, the second is not
    with pytest.warns(fnn.CheckpointWarning, match="early stopping"):
        run, history = resumed(tmp_path, OBJECTIVE, epochs=9, early_stopping=rule)
    assert history["step"].tolist() == [5, 10, 15, 20]
    assert int(run.step) == 15
    other = fnn.early_stopping(1, maximize="step")  # what was best before says nothing of it
    with pytest.warns(fnn.CheckpointWarning, match="early stopping"):
        run, history = resumed(tmp_path, OBJECTIVE, epochs=6, early_stopping=other)
    assert int(run.step) == history["step"][-1] == 30
    with pytest.warns(fnn.CheckpointWarning, match="early stopping"):
        assert int(resumed(tmp_path, OBJECTIVE, epochs=7)[0].step) == 35


def test_a_run_that_on_epoch_stopped_stays_stopped(tmp_path: Path) -> None:
    stop = lambda run, row: "stop" if row["step"] == 10 else None
    first = bits(resumed(tmp_path, OBJECTIVE, epochs=5, on_epoch=stop))
    assert bits(resumed(tmp_path, OBJECTIVE, epochs=5, on_epoch=stop)) == first
    assert int(resumed(tmp_path, OBJECTIVE, epochs=5)[0].step) == 25


@pytest.mark.parametrize(
    ("options", "name"),
    [({"shuffle": False}, "order of the rows +as given +shuffled"), ({"remainder": "pad"}, "last batch")],
)
def test_another_order_of_the_rows_is_refused(options: Any, name: str, tmp_path: Path) -> None:
    resumed(tmp_path, OBJECTIVE, batch_size=8)
    with pytest.raises(fnn.MisfitError, match=name):
        resumed(tmp_path, OBJECTIVE, batch_size=8, epochs=2, **options)


def test_batches_of_another_key_are_refused(tmp_path: Path) -> None:
    """Batches that the caller had shuffled by another key were resumed without a word."""
    shuffled = lambda seed, epochs: fnn.batches((X, Y), 8, key=jax.random.key(seed), epochs=epochs)
    resumed(tmp_path, OBJECTIVE, data=shuffled(1, 1))
    with pytest.raises(fnn.MisfitError, match="order of the rows"):
        resumed(tmp_path, OBJECTIVE, data=shuffled(2, 2), epochs=2)
    assert int(resumed(tmp_path, OBJECTIVE, data=shuffled(1, 2), epochs=2)[0].step) == 4


def test_a_padded_run_killed_in_the_middle_of_an_epoch_ends_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    options = {"batch_size": 8, "remainder": "pad"}
    killed_after(5, tmp_path, monkeypatch, **options)
    assert bits(fit(tmp_path, **options)) == bits(fit(**options))


def test_a_run_is_read_from_its_folder_in_one_call(tmp_path: Path) -> None:
    """The tree of a checkpoint had to be known: what was in it had to be printed first."""
    checkpoints = fnn.Checkpoints(tmp_path, keep=9, minimize="validation/loss")
    run, history = resumed(tmp_path, OBJECTIVE, epochs=3, validation=(X, Y), checkpoints=checkpoints)
    for found in (fnn.load_run(tmp_path), fnn.load_run(checkpoints, start())):
        assert bits((found, {})) == bits((run, {}))
    again, _ = resumed(tmp_path / "other", OBJECTIVE, run=fnn.load_run(tmp_path, start()), checkpoints=None)
    assert int(again.step) == 20
    best = fnn.load_run(checkpoints, best=True)
    assert int(best.step) == 5 * (history["validation/loss"].argmin() + 1)
    measured = fnn.evaluate(OBJECTIVE, best.params, best.state, (X, Y))
    assert measured["loss"] == pytest.approx(history["validation/loss"].min())


def test_without_a_metric_the_best_state_is_that_of_early_stopping(tmp_path: Path) -> None:
    rule = fnn.early_stopping(2, minimize="step")  # the first epoch is the best
    resumed(tmp_path, OBJECTIVE, epochs=2, early_stopping=rule)
    assert int(fnn.load_run(tmp_path, best=True).step) == 5
    best = fnn.load_run(tmp_path, start(), best=True)
    assert isinstance(best.opt_state[0], type(start().opt_state[0]))
    assert int(best.step) == 5


def test_what_is_no_run_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(fnn.CheckpointError, match="it holds no checkpoint"):
        fnn.load_run(tmp_path / "none")
    resumed(tmp_path / "run", OBJECTIVE)
    with pytest.raises(ValueError, match=r"nothing decided which state in .* is the best; pass"):
        fnn.load_run(tmp_path / "run", best=True)
    with pytest.raises(fnn.MisfitError, match="run/params/"):
        fnn.load_run(tmp_path / "run", fnn.train_init(fnn.dense(1), OPTIMIZER, jax.random.key(0), X))
    with fnn.Checkpoints(tmp_path / "tree") as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(3)})
    with pytest.raises(fnn.CheckpointError, match=r"no TrainState; read it by fnn.Checkpoints\(folder\).restore\(\)"):
        fnn.load_run(tmp_path / "tree")


def test_metrics_that_are_added_in_the_middle_of_an_epoch_are_nan_before(tmp_path: Path, monkeypatch: Any) -> None:
    killed_after(7, tmp_path, monkeypatch, early_stopping=None, validation=None)
    objective = fnn.supervised(NET, optax.losses.squared_error, metrics={"error": fnn.absolute_error})
    logged = []
    with pytest.warns(fnn.CheckpointWarning, match="metrics"):
        _, history = resumed(
            tmp_path, objective, epochs=3, log=lambda step, values: logged.append((step, values)), log_every=4
        )
    assert np.isnan(history["error"]).tolist() == [True, True, False]
    assert np.isfinite(history["loss"]).all()
    assert [step for step, _ in logged] == [8, 10, 12, 15]


def test_interrupting_saves_and_returns_what_is_there(tmp_path: Path, uninterrupted: list[bytes]) -> None:
    def batches() -> Iterator[Any]:
        yield from BATCHES[:3]
        raise KeyboardInterrupt

    run, _ = fit(tmp_path, data=batches(), epochs=1, every=None)
    assert int(run.step) in (1, 2, 3)
    assert fnn.Checkpoints(tmp_path).steps() == [int(run.step)]


SCRIPT = """
import sys, time, zlib
from tests.training.test_resume import *
seen = []
def slow(step, values):
    print("step", step, flush=True)
    time.sleep(0.02)
found = fit(Path(sys.argv[1]), epochs=4, early_stopping=None, log=slow, log_every=1)
print("done", zlib.crc32(b"".join(bits(found))), flush=True)
"""


def run_script(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finished(folder: Path) -> str:
    process = run_script(folder)
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.splitlines()[-1]


def test_killing_the_process_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    moments = np.random.default_rng().uniform(0, 0.15, 2)
    for moment in moments:
        process = run_script(tmp_path / "killed")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("step")
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert finished(tmp_path / "killed") == finished(tmp_path / "whole"), moments


def test_sigterm_saves_and_exits_as_schedulers_expect(tmp_path: Path) -> None:
    process = run_script(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("step")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert process.returncode == 143
    assert "done" not in out
    assert fnn.Checkpoints(tmp_path).steps()


def test_interrupting_a_validation_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: list[bytes]
) -> None:
    evaluate, calls = job.evaluate, []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(job, "evaluate", interrupted)
        fit(tmp_path)
    assert bits(fit(tmp_path)) == uninterrupted


def test_the_key_of_the_checkpoint_goes_on_shuffling(tmp_path: Path, monkeypatch: Any, uninterrupted: Any) -> None:
    killed_after(7, tmp_path, monkeypatch)
    other = fnn.train_init(NET, OPTIMIZER, jax.random.key(99), X)
    monkeypatch.setattr(sys.modules[__name__], "start", lambda: other)
    assert bits(fit(tmp_path)) == uninterrupted


def test_metrics_belong_to_the_state_they_are_saved_with(tmp_path: Path) -> None:
    checkpoints = fnn.Checkpoints(tmp_path, keep=9, minimize="validation/loss", every=2)
    fnn.fit(
        OBJECTIVE, OPTIMIZER, start(), (X, Y), batch_size=4, epochs=2, validation=(X, Y), checkpoints=checkpoints,
        progress=False,
    )  # fmt: skip
    assert checkpoints.steps() == [2, 4, 5, 6, 8, 10]
    assert checkpoints.best_step() in (5, 10)
