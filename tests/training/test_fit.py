import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training import job

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [0.5]], np.float32)
SPOILED = np.where(np.arange(len(X))[:, None] == 7, np.nan, X).astype(np.float32)
NET, OPTIMIZER = fnn.dense(1), optax.sgd(0.05)
OBJECTIVE = fnn.supervised(NET, optax.losses.squared_error, metrics={"error": fnn.absolute_error})


def start(optimizer: Any = OPTIMIZER) -> fnn.TrainState:
    return fnn.train_init(NET, optimizer, jax.random.key(0), X)


def fit(**options: Any) -> Any:
    options = {"data": (X, Y), "batch_size": 8, "epochs": 3, "progress": False, "run": start()} | options
    run, data = options.pop("run"), options.pop("data")
    return fnn.fit(options.pop("objective", OBJECTIVE), options.pop("optimizer", OPTIMIZER), run, data, **options)


def test_a_linear_network_learns_a_linear_rule() -> None:
    run, history = fit(epochs=40)
    np.testing.assert_allclose(run.params["kernel"], [[1.0], [-2.0], [0.5]], atol=1e-2)
    assert history["loss"][-1] < 1e-3 < history["loss"][0]


def test_the_history_has_one_value_for_each_epoch() -> None:
    _, history = fit(validation=(X, Y))
    assert list(history) == ["loss", "error", "step", "validation/loss", "validation/error"]
    assert all(isinstance(values, np.ndarray) and values.shape == (3,) for values in history.values())
    assert history["step"].tolist() == [5, 10, 15]


def test_fitting_in_two_parts_is_fitting_once() -> None:
    whole, history = fit(epochs=4)
    half, first = fit(epochs=1)
    both, second = fit(run=half, epochs=3)
    chex.assert_trees_all_equal(whole.params, both.params)
    np.testing.assert_array_equal(history["loss"], np.concatenate([first["loss"], second["loss"]]))


def test_an_iterable_of_batches_may_be_passed_over_again() -> None:
    batches = [(X[:20], Y[:20]), (X[20:], Y[20:])]
    run, history = fit(data=batches, validation=batches)
    assert int(run.step) == 6
    assert history["validation/loss"][-1] < history["validation/loss"][0]


def test_an_iterator_serves_one_epoch_only() -> None:
    assert int(fit(data=iter([(X, Y)]), epochs=1)[0].step) == 1
    with pytest.raises(ValueError, match="an iterator, which one epoch uses up; pass a list"):
        fit(data=iter([(X, Y)]), epochs=2)


def test_weights_ride_in_the_batch() -> None:
    weight = np.concatenate([np.ones(20), np.zeros(20)]).astype(np.float32)
    spoiled = Y.copy()
    spoiled[20:] = 1e6
    run, _ = fit(data=(X, spoiled, weight), epochs=60)
    np.testing.assert_allclose(run.params["kernel"], [[1.0], [-2.0], [0.5]], atol=2e-2)


def test_early_stopping_restores_the_best_state() -> None:
    def noisy_fit(rule: Any) -> Any:
        noisy = optax.chain(optax.sgd(0.05), optax.add_noise(3.0, 0.0, jax.random.key(1)))
        return fit(optimizer=noisy, run=start(noisy), epochs=50, validation=(X, Y), early_stopping=rule)

    run, history = noisy_fit(fnn.early_stopping(3, minimize="validation/loss"))
    losses = history["validation/loss"]
    assert len(losses) == losses.argmin() + 1 + 3 < 50
    measured = fnn.evaluate(OBJECTIVE, run.params, run.state, (X, Y))
    assert measured["loss"] == pytest.approx(losses.min())
    last, _ = noisy_fit(fnn.early_stopping(3, minimize="validation/loss", restore=False))
    measured = fnn.evaluate(OBJECTIVE, last.params, last.state, (X, Y))
    assert measured["loss"] == pytest.approx(losses[-1])


def test_early_stopping_names_the_columns_that_it_could_watch() -> None:
    with pytest.raises(ValueError, match=r"'validation/loss', which will not be measured; .*no validation data"):
        fit(early_stopping=fnn.early_stopping(3, minimize="validation/loss"))


def test_input_that_is_not_a_number_stops_the_run_and_loses_nothing() -> None:
    spoiled = X.copy()
    spoiled[7, 1] = np.nan
    with pytest.raises(
        fnn.NonFiniteError,
        match=r"loss of step \d is nan; .* is batch\[0\]\. Its batch are the rows .* Clean",
    ) as caught:
        fit(data=(spoiled, Y))
    assert caught.value.leaf == "batch[0]"
    assert int(caught.value.run.step) == caught.value.step
    chex.assert_tree_all_finite(caught.value.run.params)


@pytest.mark.parametrize("as_iterable", [False, True])
def test_a_run_that_diverges_names_step_and_leaf_and_keeps_the_last_good_state(as_iterable: bool) -> None:
    wild = optax.sgd(1e12)
    data = [(X, Y)] * 5 if as_iterable else (X, Y)
    with pytest.raises(fnn.NonFiniteError, match="Lower the learning rate") as caught:
        fit(data=data, optimizer=wild, run=start(wild), epochs=5)
    assert str(caught.value.leaf).startswith(("gradient of ", "loss"))
    chex.assert_tree_all_finite(caught.value.run.params)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise, which the processes of pytest-xdist ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_returns_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    def batches() -> Any:
        for number in range(40):
            if number == 35:
                signal.raise_signal(signal.SIGINT)
            yield X[:8], Y[:8]

    run, history = fit(data=batches(), epochs=1, progress=True)
    assert int(run.step) == 33  # the last report: the first is of one step, the others of 16
    assert history == {}
    assert "interrupted after step 33" in capsys.readouterr().out


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("as_iterable", [False, True])
def test_ctrl_c_before_the_first_step_raises(as_iterable: bool) -> None:
    """Ctrl-C while the step was compiled returned a state of 0 steps as if it were trained."""

    def interrupted(key: Any, batch: Any) -> Any:  # augment is called where the step is traced
        signal.raise_signal(signal.SIGINT)
        return batch

    with pytest.raises(KeyboardInterrupt):
        fit(data=[(X, Y)] if as_iterable else (X, Y), augment=interrupted)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_after_the_first_step_of_a_call_returns_it() -> None:
    def batches() -> Any:
        yield X[:8], Y[:8]
        yield X[:8], Y[:8]
        signal.raise_signal(signal.SIGINT)

    run, _ = fit(data=batches(), epochs=1, run=start()._replace(step=jnp.int32(5)))
    assert int(run.step) == 6


SIGTERM = """
import signal
from tests.training.test_fit import *
def stop(step, values):
    if step == 2:
        signal.raise_signal(signal.SIGTERM)
fit(log=stop, log_every=1)
print("not reached")
"""


def test_sigterm_without_checkpoints_ends_the_process() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SIGTERM]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout) == (143, "")


def test_nan_in_validation_is_reported_once() -> None:
    """A validation loss of NaN passed in silence."""
    options: Any = {"validation": (SPOILED, Y), "early_stopping": fnn.early_stopping(2, minimize="validation/loss")}
    message = (
        r"^validation/loss, validation/error of epoch 1 is NaN: validation\[0\] holds NaN. Early stopping and the best"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        _, history = fit(epochs=5, **options)
    assert len(caught) == 1
    assert np.isnan(history["validation/loss"]).tolist() == [True, True]


def test_validation_needs_no_more_rows_at_a_time_than_training() -> None:
    """It always took 256 rows, whatever the batch size: more than fitted into memory."""
    sizes = set()

    def counted(x: Any) -> Any:
        sizes.add(len(x))
        return x

    net = fnn.serial(fnn.dense(1), counted)
    options = {"objective": fnn.supervised(net, optax.losses.squared_error), "epochs": 1}
    options |= {"run": fnn.train_init(net, OPTIMIZER, jax.random.key(0), X[:8]), "validation": (X, Y)}
    assert sizes == {8}
    fit(**options)
    assert sizes == {8}
    fit(**options, validation_batch_size=20)
    assert sizes == {8, 20}


def test_an_iterator_validates_one_epoch_only() -> None:
    """It failed in the second epoch: the data was empty."""
    _, history = fit(validation=iter([(X, Y)]), epochs=1)
    assert len(history["validation/loss"]) == 1


def test_without_shuffling_batches_are_in_the_order_of_the_rows() -> None:
    run, _ = fit(shuffle=False, epochs=2)
    expected, _ = fit(data=[(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)], epochs=2)
    chex.assert_trees_all_close(run.params, expected.params, rtol=1e-6)


@pytest.mark.parametrize("kind", ["tuple", "dict", "weighted", "augmented"])
def test_a_padded_last_batch_is_exact(kind: str) -> None:
    """The last rows of an epoch were dropped, and nothing said so."""
    weight = RNG.uniform(0.5, 2, 40).astype(np.float32)
    data: Any = (X, Y, weight) if kind == "weighted" else {"x": X, "target": Y} if kind == "dict" else (X, Y)
    options: Any = {"augment": lambda key, batch: (batch[0] * 1, batch[1])} if kind == "augmented" else {}
    run, history = fit(data=data, batch_size=16, epochs=2, remainder="pad", shuffle=False, **options)
    short = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 16], data) for i in range(0, 40, 16)]
    expected, means = fit(data=short, epochs=2)
    assert int(run.step) == 6
    chex.assert_trees_all_close(run.params, expected.params, rtol=1e-5)
    for name in ("loss", "error"):
        np.testing.assert_allclose(history[name], means[name], rtol=1e-5)


def test_a_padded_epoch_sees_each_row_once() -> None:
    batches = fnn.batches((X, Y), 16, key=jax.random.key(3), epochs=2, remainder="pad")
    for epoch in range(2):
        rows = np.concatenate([batches.indices(step) for step in range(3 * epoch, 3 * epoch + 3)])
        assert sorted(rows) == list(range(40))
    for x, y, weight in batches:
        np.testing.assert_allclose(y, x @ np.array([[1], [-2], [0.5]], np.float32), rtol=1e-4, atol=1e-5)
        assert weight.sum() in (16, 8)
    assert len(list(fnn.batches((X, Y), 64, remainder="pad"))) == 1


def test_rows_that_are_left_out_are_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    fit(batch_size=16, progress=True)
    assert capsys.readouterr().out.startswith("each epoch leaves out 8 of 40 rows, which fill no batch of 16\n")
    fit(batch_size=16, progress=True, remainder="pad")
    assert "leaves out" not in capsys.readouterr().out


def test_padding_needs_an_objective_that_heeds_weights() -> None:
    with pytest.raises(ValueError, match=r'remainder="pad" gives some rows the weight 0, which objectives'):
        fit(objective=lambda *args, **options: OBJECTIVE(*args, **options), remainder="pad")
    with pytest.raises(ValueError, match="an iterable of batches makes its own"):
        fit(data=[(X, Y)], remainder="pad")
    with pytest.raises(ValueError, match=r"data is \(x, target\) or \(x, target, weight\), got a tuple of 4"):
        fnn.batches((X, Y, Y, Y), 16, remainder="pad")


def test_after_each_epoch_a_function_is_called_and_may_stop() -> None:
    seen = []

    def on_epoch(run: fnn.TrainState, row: dict[str, Any]) -> str | None:
        seen.append((int(run.step), row))
        return "stop" if len(seen) == 2 else None

    run, history = fit(epochs=5, validation=(X, Y), on_epoch=on_epoch)
    assert [step for step, _ in seen] == [5, 10]
    assert seen[1][1] == {name: values[1] for name, values in history.items()}
    assert int(run.step) == 10
    with pytest.raises(ValueError, match=r'on_epoch returned True; return "stop" to end the training, or nothing'):
        fit(on_epoch=lambda run, row: True)


def test_batches_may_be_lists_and_dicts() -> None:
    """Batches of a PyTorch DataLoader are lists, which were refused."""
    expected, _ = fit(data=[(X, Y)], epochs=1)
    as_list, _ = fit(data=[[X, Y]], epochs=1, validation=[[X, Y]])
    as_dict, _ = fit(data=[{"x": X, "target": Y}], epochs=1)
    chex.assert_trees_all_equal(expected.params, as_list.params, as_dict.params)


def test_a_table_is_printed_and_silence_is_one_argument(capsys: pytest.CaptureFixture[str]) -> None:
    fit(validation=(X, Y), progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "loss", "error", "validation/loss", "validation/error", "seconds"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert len({len(line) for line in lines}) == 1
    fit(validation=(X, Y), progress=False)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_long_runs_print_about_twenty_rows(capsys: pytest.CaptureFixture[str]) -> None:
    fit(epochs=200, progress=True)
    assert 20 <= len(capsys.readouterr().out.splitlines()) <= 23


def test_a_second_fit_traces_nothing_again() -> None:
    traces = []

    def counted(x: Any) -> Any:
        traces.append(1)
        return x

    net = fnn.serial(fnn.dense(1), counted)
    objective = fnn.supervised(net, optax.losses.squared_error)
    run = fnn.train_init(net, OPTIMIZER, jax.random.key(0), X)
    fit(objective=objective, run=run, validation=(X, Y))
    first = len(traces)
    fit(objective=objective, run=run, validation=(X, Y), epochs=5)
    assert len(traces) == first


def test_an_objective_of_ones_own_trains() -> None:
    def objective(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> Any:
        noisy = batch + 0.01 * jax.random.normal(key, batch.shape)
        loss = jnp.mean(jnp.square(noisy @ params["w"] @ params["w"].T - batch))
        return loss, (state, {"norm": jnp.sum(jnp.square(params["w"]))})

    params = {"w": jnp.eye(3)[:, :2]}
    run = fnn.TrainState(params, {}, OPTIMIZER.init(params), jax.random.key(0), jnp.zeros((), jnp.int32))
    run, history = fit(objective=objective, run=run, data=jnp.asarray(X), validation=X, epochs=10)
    assert list(history) == ["loss", "norm", "step", "validation/loss", "validation/norm"]
    assert history["loss"][-1] < history["loss"][0]


def test_params_where_the_run_belongs_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"run must be the TrainState that fnn\.train_init returned, got dict"):
        fit(run=start().params)


def test_an_empty_iterable_is_an_error() -> None:
    with pytest.raises(ValueError, match="data is empty"):
        fit(data=[])


def test_a_step_that_is_not_finite_can_be_skipped() -> None:
    run, history = fit(data=(SPOILED, Y), epochs=2, non_finite="skip")
    assert history["skipped"].tolist() == [1, 1]
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert int(run.step) == 2 * (len(X) // 8)


def test_skipping_everything_is_an_error() -> None:
    with pytest.raises(fnn.NonFiniteError, match=r"loss of step \d is nan"):
        fit(data=(X * np.nan, Y), epochs=20, non_finite="skip")


def test_a_run_that_diverges_is_restored_with_a_smaller_rate(tmp_path: Any) -> None:
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=300.0)
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)
    checkpoints = fnn.Checkpoints(tmp_path, every=1)
    arguments = (OBJECTIVE, optimizer, run, (X, Y))
    options = {"batch_size": 8, "epochs": 30, "progress": False}
    with pytest.raises(fnn.NonFiniteError):
        fnn.fit(*arguments, **options)
    after, history = fnn.fit(*arguments, **options, checkpoints=checkpoints, non_finite="restore")
    assert after.opt_state.hyperparams["learning_rate"] < 300
    assert np.isfinite(history["loss"]).all()
    assert len(history["loss"]) == 30


def test_restoring_goes_back_to_earlier_steps_and_at_last_to_the_beginning(tmp_path: Any, monkeypatch: Any) -> None:
    """It counted files, of which each attempt added some, and so came back to the same step."""
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-6)
    restored, restore = [], job.Kept.restore

    def noted(*arguments: Any) -> Any:
        past = restore(*arguments)
        restored.append(past and int(past.run.step))
        return past

    def fragile(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Any:
        loss, (_, metrics) = OBJECTIVE(params, {}, batch, key=key, train=train)
        loss = jnp.where(state["steps"] >= 7, jnp.nan, loss)
        return loss, ({"steps": state["steps"] + 1}, metrics | {"loss": loss})

    monkeypatch.setattr(job.Kept, "restore", noted)
    run = fnn.train_init(NET, optimizer, jax.random.key(0), X)._replace(state={"steps": jnp.zeros((), jnp.int32)})
    checkpoints = fnn.Checkpoints(tmp_path, keep=9, every=2)
    options = {"batch_size": 8, "epochs": 3, "non_finite": "restore", "checkpoints": checkpoints, "progress": False}
    with pytest.raises(fnn.NonFiniteError):
        fnn.fit(fragile, optimizer, run, (X, Y), **options)
    assert restored[:6] == [None, 6, 4, 2, None, None]
    assert len(restored) == 1 + job.ATTEMPTS


def test_an_error_of_the_disk_does_not_hide_the_one_before(tmp_path: Any, monkeypatch: Any) -> None:
    """What was saved in the background could not be written, and only that was told."""
    checkpoints = fnn.Checkpoints(tmp_path, every=1, background=True)
    write = fnn.Checkpoints._write

    def failing(*_: Any) -> None:
        raise fnn.CheckpointError(tmp_path, "the disk is full")

    def spoil(step: int, values: Any) -> None:
        monkeypatch.setattr(fnn.Checkpoints, "_write", failing)
        if step == 2:
            raise ArithmeticError("the real reason")

    with pytest.raises(ArithmeticError, match="the real reason") as error:
        fit(checkpoints=checkpoints, log=spoil, log_every=1)
    assert error.value.__notes__ == [f"Besides, what was saved last is lost: {tmp_path}: the disk is full"]
    monkeypatch.setattr(fnn.Checkpoints, "_write", write)
    assert int(fit(checkpoints=checkpoints)[0].step) == 15


def test_restoring_needs_a_rate_that_can_be_changed() -> None:
    with pytest.raises(ValueError, match=r"inject_hyperparams"):
        fit(non_finite="restore")


def test_what_would_fail_after_the_first_epoch_fails_before_it(tmp_path: Any) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it trained")

    with pytest.raises(ValueError, match=r"stopping monitors 'validation/auc', .* validation/error, validation/loss"):
        fit(validation=(X, Y), early_stopping=fnn.early_stopping(1, maximize="validation/auc"), log=never)
    with pytest.raises(ValueError, match=r"stopping monitors 'auc', .* there is error, loss, step \(and no validation"):
        fit(early_stopping=fnn.early_stopping(1, maximize="auc"), log=never)
    with pytest.raises(ValueError, match=r"checkpoints monitors 'validation/loss', .* no validation data"):
        fit(checkpoints=fnn.Checkpoints(tmp_path, minimize="validation/loss"), log=never)
    with pytest.raises(fnn.LayerError, match="kernel"):
        fit(validation=(X[:, :2], Y), log=never)


def test_gradients_that_are_not_finite_are_told_where_all_steps_are_skipped() -> None:
    objective = fnn.supervised(NET, lambda y, target: jnp.sqrt(jnp.sum(y * 0, -1)))
    with pytest.raises(fnn.NonFiniteError, match=r"the gradients of step \d are not finite"):
        fit(objective=objective, epochs=20, non_finite="skip")
    batches = [(X[:8] * np.nan, Y[:8])] * 3
    with pytest.raises(fnn.NonFiniteError):
        fit(data=batches, epochs=20, non_finite="skip")


def test_batches_have_their_own_number_of_epochs() -> None:
    batches = fnn.batches((X, Y), 8, key=jax.random.key(0), epochs=2)
    assert int(fit(data=batches, epochs=2)[0].step) == 10
    with pytest.raises(ValueError, match="10 steps, and 3 epochs are 15"):
        fit(data=batches, epochs=3)
