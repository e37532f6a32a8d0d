"""Optuna suggests, the study trains."""

import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.studies.small import SPACE, same, study

optuna = pytest.importorskip("optuna", reason="needs optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)
MIXED = {
    "learning_rate": fnn.log_uniform(1e-3, 1e-1),
    "rate": fnn.uniform(0, 1),
    "units": fnn.integer(2, 9),
    "function": fnn.choice([jnp.tanh, jnp.sin], static=True),
    "size": fnn.choice([1, 2]),
}


def create(seed=0, **settings):
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=2), **settings)


def test_scores_are_told_before_the_next_batch_is_asked_for():
    theirs = create()
    result = study(fnn.from_optuna(theirs, SPACE, batch=2), trials=5)
    assert len(result.configurations) == len(theirs.trials) == 5
    np.testing.assert_array_equal([trial.value for trial in theirs.trials], result.scores())
    assert theirs.best_params == result.best().configuration
    told = [trial.datetime_complete for trial in theirs.trials[:2]]
    assert max(told) <= theirs.trials[2].datetime_start


def test_every_kind_of_dimension_goes_there_and_back():
    asked = fnn.from_optuna(create(), MIXED).ask(0, 8)
    for row in asked:
        assert 1e-3 <= row["learning_rate"] <= 1e-1
        assert row["units"] in range(2, 10)
        assert row["function"] in (jnp.tanh, jnp.sin)
        assert row["size"] in (1, 2)
    assert {row["function"] for row in asked} == {jnp.tanh, jnp.sin}


def test_a_trial_that_diverges_is_told_as_failed():
    theirs = create()
    with pytest.warns(UserWarning, match="no trial has a finite"):
        study(fnn.from_optuna(theirs, {"learning_rate": fnn.uniform(1e3, 1e4)}, batch=2), trials=2, at="last")
    assert [trial.state.name for trial in theirs.trials] == ["FAIL", "FAIL"]


@pytest.mark.parametrize("remembers", [True, False], ids=["its storage stays", "its storage is lost"])
def test_a_study_with_a_folder_goes_on_and_optuna_with_it(tmp_path, remembers):
    theirs = create()
    few = study(fnn.from_optuna(theirs, SPACE, batch=2), trials=2, folder=tmp_path)
    again = theirs if remembers else create()
    more = study(fnn.from_optuna(again, SPACE, batch=2), trials=4, folder=tmp_path)
    same(few, more)
    assert more.configurations[:2] == few.configurations
    np.testing.assert_array_equal([trial.value for trial in again.trials], more.scores())


def test_what_optuna_cannot_do_is_refused():
    with pytest.raises(ValueError, match="rate is normal, which Optuna does not support"):
        fnn.from_optuna(create(), {"rate": fnn.normal(0, 1)})
    with pytest.raises(ValueError, match="batch must be at least 1"):
        fnn.from_optuna(create(), SPACE, batch=0)
    with pytest.raises(ValueError, match=r"create_study\(direction='minimize'\)"):
        study(fnn.from_optuna(create(direction="maximize"), SPACE), trials=2)
    with pytest.raises(ValueError, match="suggestions come in batches"):
        study(fnn.from_optuna(create(), SPACE), trials=2, halving=fnn.halving(2, first=4))
    with pytest.raises(ValueError, match="trials=64"):
        study(fnn.from_optuna(create(), SPACE))
