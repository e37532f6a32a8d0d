"""A study goes on from its folder as if it had never stopped, whatever happened to it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

import fnn
from fnn.studies import conduct
from fnn.studies.engine import Engine
from tests.studies.small import RATES, SPACE, X, Y, same, study

WHOLE = {"keep": "all", "predictions": True, "seeds": 2, "width": 3}


class CrashError(Exception):
    """The study's process ends here."""


def crash_after(monkeypatch, calls):
    """Write after each call of the executable, and end after so many."""
    left = [calls]

    def update(*_):
        left[0] -= 1
        if left[0] < 0:
            raise CrashError

    monkeypatch.setattr(Engine, "workers", 1)  # so that the number of calls is known
    monkeypatch.setattr(conduct, "SNAPSHOT", -1.0)
    monkeypatch.setattr(conduct.StudyProgress, "update", update)


@pytest.mark.parametrize("changes", [{}, {"halving": fnn.halving(3, first=4)}], ids=["plain", "halving"])
def test_a_study_that_crashes_after_any_call_ends_in_the_same_bits(tmp_path, monkeypatch, changes):
    whole = study(**WHOLE, **changes)
    for calls in range(7 if changes else 12):
        folder = tmp_path / str(calls)
        with monkeypatch.context() as patch:
            crash_after(patch, calls)
            with pytest.raises(CrashError):
                study(**WHOLE, **changes, folder=folder)
        resumed = study(**WHOLE, **changes, folder=folder)
        assert [run.id for run in resumed.runs] == [run.id for run in whole.runs]
        same(resumed, whole)
        assert resumed.kept.keys() == whole.kept.keys()
        np.testing.assert_array_equal(resumed.predictions, whole.predictions)


def test_a_study_that_is_terminated_and_killed_at_random_moments_ends_in_the_same_bits(tmp_path):
    """The process ends at a random call of fsync: in the middle of a file, between files, before and after names."""
    program = """
import os, signal, sys
from tests.studies.small import study
from fnn.studies import conduct
from fnn.studies.engine import Engine
conduct.SNAPSHOT = -1.0
number, left, fsync = int(sys.argv[1]), [int(sys.argv[2])], os.fsync
def counted(descriptor):
    fsync(descriptor)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), number)
os.fsync = counted
study(keep="all", predictions=True, seeds=2, width=3, folder=sys.argv[3])
"""
    random = np.random.default_rng()
    for number in (15, 9, 9):
        moment = random.integers(3, 14)
        done = subprocess.run(
            [sys.executable, "-c", program, str(number), str(moment), str(tmp_path)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # as in this process
            capture_output=True,
            text=True,
        )
        assert done.returncode == (143 if number == 15 else -9), (moment, done.stderr)
    same(study(**WHOLE, folder=tmp_path), study(**WHOLE))


def test_more_trials_and_seeds_leave_the_old_ones(tmp_path):
    few = study(SPACE, trials=2, folder=tmp_path)
    more = study(SPACE, trials=4, seeds=2, folder=tmp_path)
    same(few, more)
    same(more, study(SPACE, trials=4, seeds=2))
    assert "4 runs are finished" in more.remarks[1]


def test_the_files_are_read_without_fnn(tmp_path):
    result = study(folder=tmp_path, keep="all")
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["measured"]["validation/loss"] for record in records] == [
        run.measured["validation/loss"] for run in result.runs
    ]
    configurations = [json.loads(line) for line in (tmp_path / "configurations.jsonl").read_text().splitlines()]
    assert configurations == [{"trial": number, **row} for number, row in enumerate(RATES)]
    arrays = load_file(tmp_path / "networks-000000.safetensors")
    kernel = result.kept[1, 0, 0][0]["dense_0"]["kernel"]
    np.testing.assert_array_equal(arrays["trial1_seed0_fold0/params/dense_0/kernel"], kernel)


def test_values_that_are_not_finite_are_plain_json(tmp_path):
    with pytest.warns(UserWarning, match="no trial has a finite"):
        result = study([{"learning_rate": 1e4}], folder=tmp_path, at="last")
    text = (tmp_path / "runs.jsonl").read_text()
    for line in text.splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    with pytest.warns(UserWarning, match="no trial has a finite"):
        same(result, study([{"learning_rate": 1e4}], folder=tmp_path, at="last"))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"steps": 12, "evaluate_every": 6}, "evaluate_every"),
        ({"batch_size": 4}, "batch size"),
        ({"folds": 3}, "folds"),
        ({"data": (X + 1, Y)}, "data"),
        ({"at": "last"}, "compared"),
        ({"key": jax.random.key(5)}, "key"),
        ({"space": [{"learning_rate": 0.5}] * 3}, "space"),
    ],
)
def test_another_study_is_refused_with_what_differs(tmp_path, changes, name):
    study(folder=tmp_path)
    before = (tmp_path / "runs.jsonl").read_text()
    with pytest.raises(fnn.MisfitError, match=name):
        study(**{"space": RATES, **changes}, folder=tmp_path)
    assert (tmp_path / "runs.jsonl").read_text() == before


def trial_with(factor, name="loss", activation=jnp.tanh, width=4, metric="error"):
    """A trial whose loss has a constant, and a name of its own."""

    def loss(y, target):
        return factor * (y - target) ** 2

    loss.__qualname__ = loss.__name__ = name

    def trial_of(hp):
        net = fnn.serial(fnn.dense(width), activation, fnn.dense(1))
        objective = fnn.supervised(net, loss, metrics={metric: fnn.absolute_error})
        return net, objective, optax.sgd(hp["learning_rate"])

    return trial_of


OTHERS = {
    "constant": {"factor": 2.0},
    "activation": {"factor": 1.0, "activation": jax.nn.relu},
    "metric": {"factor": 1.0, "metric": "mistake"},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_a_program_that_changed_is_refused_unless_the_user_insists(tmp_path, changes):
    """Studies were compared by names: with another constant in the loss, old and new runs were mixed in silence."""
    options = {"trial": trial_with(**changes), "folder": tmp_path, "trials": 3}
    old = study(SPACE, trial=trial_with(1.0), folder=tmp_path, trials=2)
    with pytest.raises(
        fnn.MisfitError, match=r"another program(.|\n)*program +[0-9a-f]{12} +[0-9a-f]{12}(.|\n)*'warn'"
    ):
        study(SPACE, **options)
    with pytest.warns(fnn.CheckpointWarning, match="another program"):
        mixed = study(SPACE, **options, resume="warn")
    same(mixed, old)
    assert mixed.runs[-1].measured == study(SPACE, **options | {"folder": None}).runs[-1].measured
    study(SPACE, **options)  # the new program is the study's now


def test_a_renamed_function_is_the_same_study(tmp_path):
    """A study whose loss was renamed did not resume."""
    before = study(trial=trial_with(1.0), folder=tmp_path)
    after = study(trial=trial_with(1.0, name="renamed"), folder=tmp_path)
    same(before, after)
    assert "6 runs are finished" in after.remarks[1]


def test_networks_of_other_shapes_are_refused_in_any_case(tmp_path):
    study(trial=trial_with(1.0), folder=tmp_path)
    with pytest.raises(fnn.MisfitError, match="parameters"):
        study(trial=trial_with(1.0, width=5), folder=tmp_path, resume="warn")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, study(**WHOLE, folder=folder)


def cut_last_line(folder):
    file = folder / "runs.jsonl"
    file.write_text(file.read_text()[:-20])


def spoil_a_line(folder):
    file = folder / "runs.jsonl"
    lines = file.read_text().splitlines()
    lines[3] = lines[3][:40] + "\x00" + lines[3][41:]
    file.write_text("\n".join(lines) + "\n")


def spoil_networks(folder):
    file = folder / "networks-000000.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def spoil_running(folder):
    (folder / "running.safetensors").write_bytes(b"nothing of the kind")


@pytest.mark.parametrize("damage", [cut_last_line, spoil_a_line, spoil_networks, spoil_running])
def test_what_is_damaged_is_told_of_and_trained_again(finished, tmp_path, damage):
    folder, whole = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.warns(fnn.CheckpointWarning):
        resumed = study(**WHOLE, folder=copy)
    same(resumed, whole)
    np.testing.assert_array_equal(resumed.predictions, whole.predictions)
    same(study(**WHOLE, folder=copy), whole)  # and mended: no warning, which would be an error


def test_the_best_network_is_trained_again_where_its_file_is_lost(tmp_path):
    whole = study(folder=tmp_path)
    for file in tmp_path.glob("networks-*"):
        file.unlink()
    resumed = study(folder=tmp_path)
    assert resumed.kept.keys() == whole.kept.keys() != set()
    same(resumed, whole)


def test_a_damaged_description_is_refused(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    (copy / "study.json").write_text("{")
    with pytest.raises(fnn.CheckpointError, match=r"study.json: it is damaged"):
        study(**WHOLE, folder=copy)


def test_two_studies_do_not_share_a_folder(tmp_path):
    from fnn.studies.folder import StudyFolder

    folder = StudyFolder(tmp_path)
    with pytest.raises(fnn.CheckpointError, match="another process runs this study"):
        study(folder=tmp_path)
    folder.close()
    with pytest.raises(ValueError, match="steps must be a positive int"):
        study(folder=tmp_path, steps=0)  # what is refused lets go of the folder
    study(folder=tmp_path)
