"""Studies from end to end: what they compute, what it depends on, and what goes wrong."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import weakref
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.ops.shuffle import ROUNDS
from fnn.studies.folds import as_folds
from fnn.studies.settings import make_table
from fnn.studies.trial import Place, Program, run_key
from tests.compilations import compilations
from tests.studies.small import KEY, RATES, SPACE, X, Y, same, study, trial

ROUNDING: Any = {"rtol": 1e-4, "atol": 1e-6}  # between ways to run the same training by SGD


def test_a_run_is_the_training_that_a_person_would_write():
    result = study(keep="all", at="last")
    pairs = study_folds(2)
    for number, row in enumerate(RATES):
        net, objective, optimizer = trial(row)
        table, _ = make_table((X, Y), None, 2, draws())
        place = Place({}, 0, 1, 12)
        run = fnn.train_init(net, optimizer, run_key(KEY, place), X)
        step = jax.jit(fnn.train_step(objective, optimizer))
        words = jax.random.bits(fnn.fold(run.key, "shuffle"), (2 * ROUNDS,), jnp.uint32)
        program = Program(trial, {}, 8, "validation/loss", -1, False)
        for at in range(12):
            run, _ = step(run, program.batch(words, jnp.int32(at), place, table))
        for mine, theirs in zip(jax.tree.leaves(result.kept[number, 0, 1][0]), jax.tree.leaves(run.params)):
            np.testing.assert_allclose(mine, theirs, **ROUNDING)
        held = pairs[1][1]
        wanted = fnn.evaluate(objective, run.params, run.state, (X[held], Y[held]))
        found = next(one for one in result.runs if one.id == (number, 0, 1))
        assert found.last("validation/loss") == pytest.approx(wanted["loss"], rel=1e-4)
        assert found.last("validation/error") == pytest.approx(wanted["error"], rel=1e-4)


def draws():
    return [*np.asarray(jax.random.key_data(KEY)).ravel().tolist(), zlib.crc32(b"study")]


def study_folds(folds):
    return as_folds(folds).split(48, Y, np.random.default_rng([*draws(), zlib.crc32(b"folds")]))


def test_ways_to_run_differ_by_rounding_only():
    wide = study(keep="all")
    same(wide, study(mode="loop", width="auto", keep="all"), **ROUNDING)
    same(wide, study(width=3, keep="all"), **ROUNDING)


def test_a_run_does_not_depend_on_the_others_at_one_width():
    """To the bit: more trials, another order of them, and other neighbours in the executable."""
    some = study(SPACE, trials=2)
    more = study(SPACE, trials=5, seeds=2)
    same(some, more)
    turned = study(list(reversed(RATES)))
    for run in study().runs:
        other = next(one for one in turned.runs if one.id == (2 - run.id.trial, *run.id[1:]))
        assert run.measured == other.measured


def test_seeds_and_folds_give_other_numbers_and_the_same_ones_in_every_trial():
    result = study([{"learning_rate": 0.0}] * 2, seeds=2, keep="all")
    first = {run_id: np.asarray(tree[0]["dense_0"]["kernel"]) for run_id, tree in result.kept.items()}
    for seed in range(2):
        for fold in range(2):
            np.testing.assert_array_equal(first[0, seed, fold], first[1, seed, fold])
    assert len({kernel.tobytes() for kernel in first.values()}) == 4


def test_another_key_is_another_study():
    assert study().runs[0].measured != study(key=jax.random.key(1)).runs[0].measured


def test_all_devices_of_a_mesh_are_used_without_a_collective():
    """Four devices, in a process of its own."""
    program = """
import jax, numpy as np, jax.numpy as jnp
from tests.studies.small import same, study
import fnn.studies.engine as engine
texts = []
lower = engine.lowered
def spy(*args, **options):
    made = lower(*args, **options)
    texts.append(made.compiled().as_text())
    return made
engine.lowered = spy
mesh = jax.make_mesh((4,), ("trial",))
sharded = study(mesh=mesh, mode="auto", width="auto", keep="all", predictions=True)
assert sharded.remarks[-1] == "8 networks at a time over 4 devices", sharded.remarks
assert len(texts) >= 2
for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
    assert not any(word in text for text in texts), word
plain = study(keep="all", predictions=True)
same(sharded, plain, rtol=1e-4, atol=1e-6)
np.testing.assert_allclose(sharded.predictions, plain.predictions, rtol=1e-4, atol=1e-5)
"""
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run_python(program, environment)


def run_python(program, environment):
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_run_that_diverges_ends_alone_and_at_the_step_before():
    rates = [RATES[0], {"learning_rate": 1e4}, RATES[2]]
    result = study(rates, keep="all", at="last")
    assert [run.status for run in result.runs] == ["finished"] * 2 + ["diverged"] * 2 + ["finished"] * 2
    quiet = study([RATES[0], RATES[1], RATES[2]], keep="all", at="last")
    for run in result.runs:
        if run.id.trial != 1:
            assert run.measured == next(one for one in quiet.runs if one.id == run.id).measured
    assert np.isnan(result.scores()[1])
    assert result.order()[-1] == 1
    bad = next(run for run in result.runs if run.status == "diverged")
    assert bad.step < 12
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.kept))


def test_a_study_in_which_all_diverge_says_so():
    with pytest.warns(UserWarning, match="no trial has a finite validation/loss: 1 trial, 2 runs: 2 diverged"):
        result = study([{"learning_rate": 1e30}])
    with pytest.raises(ValueError, match=r"top\(1\) of 0 trials with a score.*2 diverged"):
        result.best()


def level_trial(hp):
    """A loss that is known from the start and that no training changes."""
    net = fnn.dense(1)

    def objective(params, state, batch, *, key, train):
        return hp["level"] + 0.0 * jnp.sum(params["kernel"]), (state, {})

    return net, objective, optax.sgd(0.1)


def test_halving_gives_the_steps_to_the_best():
    levels = np.random.default_rng(0).permutation(12).astype(float)
    result = study(
        [{"level": level} for level in levels], trial=level_trial, halving=fnn.halving(3, first=4), steps=16, seeds=2
    )
    assert "compared after 4, 12 of 16 steps" in result.remarks
    assert result.remarks[-2:] == ["after 4 steps 4 of 12 trials continue", "after 12 steps 1 of 4 trials continue"]
    for run in result.runs:
        level = levels[run.id.trial]
        wanted = (16, "finished") if level == 0 else (12, "evicted") if level < 4 else (4, "evicted")
        assert (run.step, run.status) == wanted
        assert run.steps == list(range(4, run.step + 1, 4))
    assert result.best().configuration["level"] == 0


def test_halving_changes_nothing_in_what_it_trains():
    whole, halved = study(keep="all", at="last"), study(keep="all", at="last", halving=fnn.halving(3, first=4))
    best = halved.best().trial
    for run in halved.runs:
        other = next(one for one in whole.runs if one.id == run.id)
        assert run.measured["validation/loss"] == other.measured["validation/loss"][: len(run.steps)]
        if run.id.trial == best:
            for mine, theirs in zip(jax.tree.leaves(halved.kept[run.id]), jax.tree.leaves(whole.kept[run.id])):
                np.testing.assert_array_equal(mine, theirs)


def test_early_stopping_ends_the_runs_that_no_longer_improve():
    result = study([{"learning_rate": 0.0}, RATES[1]], early_stopping=fnn.early_stopping(1, minimize="validation/loss"))
    assert [(run.status, run.step) for run in result.runs] == [("stopped", 8)] * 2 + [("finished", 12)] * 2


def test_steps_may_be_those_of_the_configuration():
    result = study(RATES, steps=lambda hp: 4 if hp["learning_rate"] < 0.02 else 10)
    assert [run.step for run in result.runs] == [4, 4, 10, 10, 10, 10]
    same(result, study(RATES[:1], steps=4))


def normalised_trial(hp):
    net = fnn.serial(fnn.batch_norm(), fnn.dense(1))
    return net, fnn.supervised(net, optax.losses.squared_error), optax.adam(hp["learning_rate"])


def test_an_outlier_among_held_out_rows_changes_nothing_that_is_trained():
    rule = fnn.k_fold(2)
    held = rule.split(48, Y, np.random.default_rng([*draws(), zlib.crc32(b"folds")]))[0][1]
    spoiled = X.copy()
    spoiled[held[0]] = 1e6
    results = [
        study(RATES[:1], trial=normalised_trial, folds=rule, data=(x, Y), keep="all", at="last") for x in (X, spoiled)
    ]
    clean, other = (jax.tree.leaves(result.kept[0, 0, 0]) for result in results)
    for mine, theirs in zip(clean, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(*(jax.tree.leaves(result.kept[0, 0, 1]) for result in results), strict=True):
        assert not np.array_equal(mine, theirs)


def test_predictions_are_in_the_order_of_the_data_and_of_networks_that_did_not_see_the_row():
    result = study(RATES[:1], keep="all", predictions=True, seeds=2)
    pairs = study_folds(2)
    assert result.predictions.shape == (1, 2, 48, 1)
    for fold, (_, held) in enumerate(pairs):
        one = result.network(0, seed=1, fold=fold)
        y, _ = one.net.apply(one.params, one.state, X[held])
        np.testing.assert_allclose(result.predictions[0, 1, held], y, **ROUNDING)


def test_rows_that_are_never_held_out_have_no_prediction():
    result = study(RATES[:1], folds=fnn.time_series(2, held_out=8), predictions=True)
    assert np.isnan(result.predictions[0, 0, :32]).all()
    assert np.isfinite(result.predictions[0, 0, 32:]).all()


def test_predictions_for_validation_data_have_its_rows():
    result = study(RATES[:1], validation=(X[:5], Y[:5]), predictions=True)
    one = result.network()
    np.testing.assert_allclose(result.predictions[0, 0], one.net.apply(one.params, one.state, X[:5])[0], **ROUNDING)


def test_leave_one_out_measures_every_row_once():
    result = study(RATES[2:], data=(X[:12], Y[:12]), folds=fnn.leave_one_out(), predictions=True, width=6)
    assert len(result.runs) == 12
    losses = [run.best_value for run in result.runs]
    np.testing.assert_allclose(losses, 0.5 * 2 * (result.predictions[0, 0] - Y[:12])[:, 0] ** 2, rtol=1e-4)


def test_static_choices_have_one_program_each_however_many_trials():
    calls = []

    def counted(hp):
        calls.append(hp["width"])
        net = fnn.serial(fnn.dense(hp["width"]), hp["activation"], fnn.dense(1))
        return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])

    space = {
        "width": fnn.choice([2, 3], static=True),
        "activation": fnn.choice([jnp.tanh], static=True),
        "learning_rate": fnn.log_uniform(1e-3, 1e-1),
    }
    result = study(space, trial=counted, trials=6, folds=None, steps=4)
    assert result.remarks[0] == (
        "6 trials: 6 runs, 2 programs (width=3, activation=tanh; width=2, activation=tanh) to compile"
    )
    few = len(calls)
    more = study(space, trial=counted, trials=12, folds=None, steps=4)
    assert len(calls) == 2 * few
    widths = [row["width"] for row in more.configurations]
    assert set(widths) == {2, 3}
    for trial_number, width in enumerate(widths):
        if (trial_number, 0, 0) in more.kept:
            assert more.kept[trial_number, 0, 0][0]["dense_0"]["kernel"].shape == (3, width)


def changed_trial(hidden, target=0.0, scale=None, bits=None):
    """A trial that reads what it closes over; each call makes one function, whose surroundings may change."""
    around = {"hidden": hidden, "target": target, "scale": np.ones(3, np.float32) if scale is None else scale}

    def trial_of(hp):
        net = fnn.serial(lambda x: x * around["scale"], fnn.dense(around["hidden"]), fnn.dense(1))
        loss = lambda y, target: (y - target - around["target"]) ** 2
        return net, fnn.supervised(net, loss), optax.sgd(hp["learning_rate"])

    return trial_of, around


def test_a_second_study_sees_what_the_helpers_of_its_trial_have_become():
    """The compiled program was found by the trial function, and trained the old network without a word."""
    changing, around = changed_trial(4)
    options: Any = {"space": RATES[:1], "folds": None, "keep": "all", "at": "last", "steps": 4}
    study(trial=changing, **options)
    for change in ({"hidden": 5}, {"target": 3.0}, {"scale": np.array([1, 0, -1], np.float32)}):
        around.update(change)
        fresh, _ = changed_trial(**around)
        again = study(trial=changing, **options)
        kernel = again.network().params["dense_0"]["kernel"]
        assert kernel.shape == (3, around["hidden"])
        np.testing.assert_array_equal(kernel, study(trial=fresh, **options).network().params["dense_0"]["kernel"])
        assert not np.array_equal(
            kernel, study(trial=changed_trial(4)[0], **options).network().params["dense_0"]["kernel"]
        )


def test_a_second_study_has_its_own_names():
    """A metric that was renamed was reported under its name in the study before."""

    def renamed(name):
        def made(hp):
            net, _, optimizer = trial(hp)
            return net, fnn.supervised(net, optax.losses.squared_error, metrics={name: fnn.absolute_error}), optimizer

        return made

    for name in ("error", "distance"):
        assert name in study(RATES[:1], trial=renamed(name), folds=None, steps=4).runs[0].measured


def test_a_second_study_compiles_nothing():
    options: Any = {"space": RATES, "folds": None, "predictions": False, "steps": 4}
    first = study(trial=changed_trial(4)[0], **options)
    with compilations() as found:
        second = study(trial=changed_trial(4)[0], **options)
    assert not found
    same(first, second)
    fnn.clear_caches()
    with compilations() as found:
        study(trial=changed_trial(4)[0], **options)
    assert found


def test_a_study_sees_another_way_to_make_random_numbers():
    options: Any = {"space": [{"learning_rate": 0.0}], "folds": None, "steps": 2, "width": 1}
    kernels = {}
    for partitionable in (True, False):
        with jax.threefry_partitionable(partitionable):
            kernels[partitionable] = study(**options).network().params["dense_0"]["kernel"]
            net, _, optimizer = trial(RATES[0])
            wanted = fnn.train_init(net, optimizer, run_key(KEY, Place({}, 0, 0, 0)), X).params
            np.testing.assert_allclose(kernels[partitionable], wanted["dense_0"]["kernel"], rtol=1e-6)
    assert not np.array_equal(*kernels.values())


def test_a_study_keeps_neither_its_trial_nor_what_it_closes_over():
    """Programs were kept by the trial function, and so was all that it closes over."""

    def train():
        big = np.ones(48, np.float32)

        def augment(key, batch):
            x, y = batch
            return x * big[:8, None], y

        study(RATES[:1], trial=lambda hp: (*trial(hp), augment), folds=None, steps=2)
        return weakref.ref(big), weakref.ref(augment)

    held = train()
    gc.collect()
    assert [one() for one in held] == [None, None]


def test_batch_size_may_be_a_static_choice():
    space = fnn.grid({"size": fnn.choice([4, 8], static=True), "learning_rate": [0.1]})
    result = study(space, batch_size=lambda hp: hp["size"], folds=None, steps=4)
    assert len(result.remarks) == 3
    with pytest.raises(ValueError, match="batch_size depends on 'learning_rate', which must be a choice with static"):
        study(space, batch_size=lambda hp: int(hp["learning_rate"]))


def test_augment_is_a_part_of_the_step():
    def noisy(hp):
        def augment(key, batch):
            x, y = batch
            return x + hp["noise"] * jax.random.normal(key, x.shape), y

        return *trial({"learning_rate": 0.03}), augment

    result = study([{"noise": 0.0}, {"noise": 1.0}], trial=noisy, folds=None)
    clean, other = result.runs
    assert clean.last("loss") != other.last("loss")
    assert clean.measured == study(RATES[1:2], folds=None).runs[0].measured


def test_an_objective_of_ones_own_is_measured_on_folds_of_one_size():
    def own(hp):
        net, supervised, optimizer = trial(hp)
        return net, lambda *args, **more: supervised(*args, **more), optimizer

    same(study(RATES[:1]), study(RATES[:1], trial=own), rtol=1e-5)
    with pytest.raises(ValueError, match="folds of different sizes need an objective made by"):
        study(RATES[:1], trial=own, folds=5)


def signalled(number, step):
    """A trial whose training sends a signal to this process at a step of all runs; at step 0 while it is traced."""
    steps = itertools.count(1)

    def note():
        if next(steps) == step:
            os.kill(os.getpid(), number)

    def augment(key, batch):
        jax.debug.callback(note)
        return batch

    def trial_of(hp):
        if not step:
            signal.raise_signal(number)
        return *trial(hp), augment

    return {"trial": trial_of, "mode": "loop", "width": 1}


@pytest.mark.parametrize("step", [0, 1, 30])
def test_sigterm_ends_the_process_without_a_folder_too(step):
    """A study without a folder noted the signal, and returned 3 of 40 runs as if all were done."""
    with pytest.raises(SystemExit) as ended:
        study(**signalled(signal.SIGTERM, step))
    assert ended.value.code == 143


def test_sigterm_saves_first_where_there_is_a_folder(tmp_path):
    with pytest.raises(SystemExit) as ended:
        study(**signalled(signal.SIGTERM, 30), folder=tmp_path)
    assert ended.value.code == 143
    assert (tmp_path / "running.safetensors").exists()


@pytest.mark.parametrize("step", [0, 1])
def test_ctrl_c_before_the_first_measurement_raises(step):
    """It was noted, and a study that was still compiled went on to its first measurement."""
    with pytest.raises(KeyboardInterrupt):
        study(**signalled(signal.SIGINT, step))


def test_ctrl_c_returns_what_is_there():
    result = study(**signalled(signal.SIGINT, 30))
    over = sum(run.status == "finished" for run in result.runs)
    assert 0 <= over < 6
    assert any(run.steps for run in result.runs)
    assert result.remarks[-1] == f"asked to stop: {over} of 6 runs are over"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maximize": "accuracy"}, "maximize='accuracy' is not measured; there is"),
        (
            {"folds": None, "minimize": "validation/loss"},
            "minimize='validation/loss' is not measured; there is .*; give folds or validation",
        ),
        ({"halving": fnn.halving(3, first=12)}, "halving compares first after 12 steps, and there are 12"),
        ({"minimize": "loss", "maximize": "loss"}, "not both"),
        ({"space": {}}, "the space is empty"),
        ({"space": SPACE}, "say how many configurations to draw: trials=64"),
        ({"trials": 0}, "at least 1"),
        ({"trials": 4}, "at most 3, the configurations there are"),
        ({"seeds": 0}, "seeds must be a positive int"),
        ({"folds": 49}, "49 folds of 48 rows"),
        ({"steps": 0}, "steps must be a positive int"),
        ({"steps": 2.5}, "steps must be a positive int"),
        ({"evaluate_every": 0}, "evaluate_every must be a positive int"),
        ({"batch_size": 25}, "batch_size is 25, and a fold has 24 rows to train on"),
        ({"keep": -1}, "keep is a number"),
        ({"mode": "fast"}, "mode is 'auto', 'vmap' or 'loop'"),
        ({"mode": "loop", "width": 4}, "mode is 'auto', 'vmap' or 'loop'"),
        ({"width": 0}, "width is a positive number"),
        ({"folds": None, "predictions": True}, "give folds or validation"),
        ({"data": (X, Y[:5])}, "differ in their number of rows"),
        (
            {"early_stopping": fnn.early_stopping(1, minimize="validation/loss"), "folds": None},
            "early stopping monitors 'validation/loss'",
        ),
        ({"early_stopping": fnn.early_stopping(1, maximize="validation/f1")}, "monitors 'validation/f1'; there is"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**{"space": RATES, **changes})


def test_folds_and_validation_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        fnn.study(trial, RATES, data=(X, Y), folds=2, validation=(X, Y), steps=1, key=KEY)


def test_a_shape_that_depends_on_a_traced_value_is_explained():
    def wrong(hp):
        net = fnn.dense(hp["width"])
        return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(0.1)

    with pytest.raises(ValueError, match=r"fnn.choice\(\[...\], static=True\)"):
        study([{"width": 4}], trial=wrong)

    def branching(hp):
        return trial({"learning_rate": 0.1 if hp["width"] > 3 else 0.2})

    with pytest.raises(ValueError, match=r"fnn.choice\(\[...\], static=True\)"):
        study([{"width": 4}], trial=branching)


def test_a_value_that_is_no_hyperparameter_is_not_taken_for_one():
    """Any error whose text named a tracer was said to need a static hyperparameter."""

    def wrong(hp):
        net = fnn.serial(lambda x: x if x.sum() > 0 else -x, fnn.dense(1))
        return net, fnn.supervised(net, optax.losses.squared_error), optax.sgd(hp["learning_rate"])

    with pytest.raises(jax.errors.TracerBoolConversionError):
        study(trial=wrong)


def test_a_trial_that_returns_something_else_is_refused():
    with pytest.raises(TypeError, match="the trial must return"):
        study(trial=lambda hp: trial(hp)[:2])
