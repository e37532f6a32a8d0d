"""What is said of a study's runs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.studies.configurations import as_space
from fnn.studies.runs import Run, RunId
from tests.studies.small import RATES, SPACE, X, study


def run(trial, seed, fold, *values, status: Any = "finished"):
    made = Run(RunId(trial, seed, fold), status)
    for number, value in enumerate(values):
        made.add(10 * (number + 1), {"validation/accuracy": value})
    made.step, made.best_value = 10 * len(values), max(values, default=float("nan"))
    made.best_step = 10 * (values.index(made.best_value) + 1) if values else 0
    return made


def result(runs, **changes):
    trials = max(one.id.trial for one in runs) + 1
    settings = {"space": as_space(SPACE), "monitor": "validation/accuracy", "maximize": True, "at": "best"}
    settings |= {"configurations": [{"learning_rate": 10.0**-n} for n in range(1, trials + 1)], "runs": runs}
    settings |= {"networks": lambda configuration: fnn.dense(1), "kept": {}, "predictions": None, "remarks": []}
    return fnn.StudyResult(**settings | changes)


SMALL = [
    run(0, 0, 0, 0.5, 0.7),
    run(0, 1, 0, 0.5, 0.9),
    run(1, 0, 0, 0.9, 0.6),
    run(1, 1, 0, 0.9, 0.8),
    run(2, 0, 0, 0.99),
    run(2, 1, 0, 0.1, status="diverged"),
]


def test_scores_are_means_over_seeds_and_folds_and_the_best_comes_first():
    np.testing.assert_allclose(result(SMALL).scores(), [0.8, 0.9, np.nan])
    assert result(SMALL).order() == [1, 0, 2]
    assert result(SMALL, maximize=False).order() == [0, 1, 2]
    assert result(SMALL).best() == (1, {"learning_rate": 0.01}, pytest.approx(0.9), 10)
    np.testing.assert_allclose(result(SMALL, at="last").scores(), [0.8, 0.7, np.nan])


def test_the_best_trial_says_for_how_many_steps_to_train_it_again():
    """The winner's configuration was told, and not the step of its value."""
    runs = [run(0, seed, 0, *values) for seed, values in enumerate([(0.1, 0.9), (0.8, 0.2, 0.1, 0.1), (0.7, 0.6, 0.8)])]
    assert result(runs).best().step == 20
    assert result(runs, at="last").best().step == 30


def test_curves_are_padded():
    curves = result(SMALL).curves("validation/accuracy")
    assert curves.shape == (6, 2)
    np.testing.assert_array_equal(curves[4], [0.99, np.nan])
    np.testing.assert_array_equal(result(SMALL).steps()[0], [10, 20])
    with pytest.raises(ValueError, match="'f1' was not measured; there is validation/accuracy"):
        result(SMALL).curves("f1")


def test_more_than_there_are_cannot_be_the_best():
    assert [best.trial for best in result(SMALL).top(9)] == [1, 0]
    with pytest.raises(ValueError, match=r"top\(1\) of 0 trials with a score; 1 trial, 1 run: 1 diverged"):
        result([run(0, 0, 0, status="diverged")]).best()


def test_what_halving_evicted_comes_after_what_went_on():
    runs = [run(0, 0, 0, 0.9, status="evicted"), run(1, 0, 0, 0.5, 0.6), run(2, 0, 0, 0.8, 0.7, status="evicted")]
    assert result(runs).order() == [1, 2, 0]


def test_what_halving_evicted_is_compared_after_the_steps_that_it_did():
    pair = lambda trial, *values, **more: [
        run(trial, seed, 0, *(v + 0.01 * seed for v in values), **more) for seed in (0, 1)
    ]
    halved = result([*pair(0, 0.5, 0.6, 0.9), *pair(1, 0.4, 0.7, status="evicted")])
    assert halved.evicted().tolist() == [False, True]
    assert halved.compare(0, 1).difference == pytest.approx(0.6 - 0.7)
    assert result([*pair(0, 0.5, 0.6, 0.9), *pair(1, 0.4, 0.7)]).compare(0, 1).difference == pytest.approx(0.9 - 0.7)
    lines = [line.split() for line in str(halved).splitlines()[1:]]
    assert lines[0] == ["trial", "validation/accuracy", "95%", "interval", "steps", "learning_rate"]
    assert [(line[0], line[-2]) for line in lines[1:]] == [("0", "30"), ("1", "20")]


def test_importance_of_a_halved_study_is_that_of_the_steps_that_all_did():
    """Early on the rate decides nothing; what went on gained by its steps, and the rate decided who went on."""
    early = np.random.default_rng(0).uniform(size=40)
    runs = [
        run(n, 0, 0, value, *([value + 5] if n < 10 else []), status="finished" if n < 10 else "evicted")
        for n, value in enumerate(early)
    ]
    other = [{"learning_rate": float(n), "momentum": float(value)} for n, value in enumerate(early)]
    space = as_space({"learning_rate": fnn.uniform(0, 40), "momentum": fnn.uniform(0, 1)})
    assert result(runs, configurations=other, space=space).importance()["momentum"] > 0.9


def test_a_table_of_all_runs():
    frame = pytest.importorskip("pandas") and result(SMALL).to_pandas()
    assert list(frame.columns) == [
        "trial", "seed", "fold", "status", "validation/accuracy", "step", "best_step", "learning_rate"
    ]  # fmt: skip
    assert frame.groupby("trial")["validation/accuracy"].mean()[0] == pytest.approx(0.8)


def test_records_have_hyperparameters_and_measurements():
    first = next(result(SMALL).records())
    assert first["hyperparameters"] == {"learning_rate": 0.1}
    assert first["measured"] == {"validation/accuracy": [0.5, 0.7]}
    assert (first["trial"], first["value"]) == (0, 0.7)


def test_the_summary_shows_the_best_first_with_intervals():
    lines = str(result(SMALL)).splitlines()
    assert lines[0] == "3 trials, 6 runs: 5 finished, 1 diverged; largest validation/accuracy first"
    assert lines[1].split() == ["trial", "validation/accuracy", "95%", "interval", "learning_rate"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "0"]


def test_the_summary_says_how_many_trials_it_leaves_out():
    """It showed 10 of 40 trials as if there were no others."""
    runs = [run(trial, 0, 0, 0.01 * trial) for trial in range(12)] + [run(12, 0, 0, status="diverged")]
    lines = str(result(runs)).splitlines()
    assert len(lines) == 13
    assert lines[-1] == "... 2 more"


@pytest.fixture(scope="module")
def trained():
    return study(keep=2, seeds=2)


def test_parameters_of_the_best_are_kept_and_no_others(trained):
    assert {kept[0] for kept in trained.kept} == {best.trial for best in trained.top(2)}
    assert len(trained.kept) == 8
    worst = trained.order()[-1]
    with pytest.raises(ValueError, match=rf"trial {worst}, seed 0, fold 0 were not kept.*keep='all'"):
        trained.network(worst)
    assert not study(keep=0).kept


def test_an_ensemble_is_the_mean_of_the_networks_of_the_best_trials(trained):
    one = trained.ensemble(2)
    y, _ = one.net.apply(one.params, one.state, X)
    wanted = [
        trained.network(best.trial, seed, fold) for best in trained.top(2) for seed in range(2) for fold in range(2)
    ]
    outputs = [net.net.apply(net.params, net.state, X)[0] for net in wanted]
    np.testing.assert_allclose(y, np.mean(outputs, axis=0), rtol=1e-5)
    every = trained.ensemble(2, join=lambda *ys: jnp.stack(ys))
    assert every.net.apply(every.params, every.state, X)[0].shape == (8, 48, 1)


def test_the_network_is_that_of_the_best_measurement(trained):
    """Of a run whose loss rises again, the parameters are those of its lowest point."""
    risen = study([{"learning_rate": 0.55}], steps=24, keep="all")
    for one in risen.runs:
        losses = one.measured["validation/loss"]
        assert one.best_value == min(losses)
        assert one.best_step == one.steps[int(np.argmin(losses))]
    assert any(one.best_step < one.step for one in risen.runs)


def test_intervals_and_comparisons_are_of_the_same_seeds_and_folds(trained):
    best, second = trained.top(2)
    values = [one.best_value for one in trained.runs if one.id.trial == best.trial]
    others = [one.best_value for one in trained.runs if one.id.trial == second.trial]
    assert trained.interval(best.trial).mean == pytest.approx(np.mean(values))
    assert trained.compare(best.trial, second.trial).difference == pytest.approx(np.mean(values) - np.mean(others))
    with pytest.raises(ValueError, match="no trial 9; it has 0 to 2"):
        trained.interval(9)


def test_predictions_of_a_network_do_not_depend_on_how_it_was_trained(trained):
    one = trained.network()
    assert isinstance(jax.tree.leaves(one.params)[0], np.ndarray)
    assert one.net.apply(one.params, one.state, X)[0].shape == (48, 1)
    assert len(RATES) == len(trained.configurations)
