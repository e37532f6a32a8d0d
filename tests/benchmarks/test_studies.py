import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__, harness, machine, studies
from benchmarks.harness import Peer
from benchmarks.studies import MEASURED_ON, TASKS
from benchmarks.study_peers import FEW, PEERS, Outcome, Program, StudyTask

ROWS, CLASSES = 48, 3
PARAMETERS = {
    "mlp": 8 * 16 + 16 + 16 * CLASSES + CLASSES,
    "cnn": 9 * 4 + 4 + 9 * 4 * 8 + 8 + 7 * 7 * 8 * CLASSES + CLASSES,
}

# Keras reads the name of its backend when it is imported: it is started as the benchmark starts it.
WITHIN = [(name, peer) for name, peers in MEASURED_ON.items() for peer in peers if not peer.startswith("keras")]


def tiny(name: str) -> tuple[StudyTask, dict[str, np.ndarray]]:
    """A workload with few rows, units and steps, and one learning rate that is far too small."""
    task = TASKS[name]
    small = {"hidden": 16, "steps": 60} if task.network == "mlp" else {"hidden": 4, "steps": 24}
    task = replace(
        task, classes=CLASSES, batch=8, trials=2, lowest=1e-6, highest=1e-2, folds=min(task.folds, 3), **small
    )
    if task.network == "mlp":
        random, y = np.random.default_rng(0), np.arange(ROWS, dtype=np.int32) % CLASSES
        x = 4 * random.standard_normal((CLASSES, 8), np.float32)[y] + random.standard_normal((ROWS, 8), np.float32)
    else:
        images = studies.images()[0]
        chosen = np.flatnonzero(images["y"] < CLASSES)[:ROWS]
        x, y = images["x"][chosen], images["y"][chosen]
    arrays = {"x": x, "y": y}
    if task.folds == 1:
        arrays |= {"x_validation": x[:12], "y_validation": y[:12]}
    return task, arrays


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # scikit-learn hopes to converge in fewer epochs
@pytest.mark.parametrize(("name", "peer"), WITHIN)
def test_peers_train_the_same_networks_for_the_same_steps(name: str, peer: str) -> None:
    _skip_where_absent(peer)
    task, arrays = tiny(name)
    program = PEERS[peer].prepare(task, arrays)
    outcome = program.study(task.rates(), 0)
    slow, fast = outcome.accuracies
    assert slow < fast <= 1
    assert fast > 0.6
    assert outcome.steps == task.steps
    assert program.parameters() == PARAMETERS[task.network]


@pytest.mark.parametrize("peer", [peer for peer in MEASURED_ON["mlp-64"] if peer.startswith("keras")])
def test_keras_does_the_whole_workload(peer: str, tmp_path: Path) -> None:
    _skip_where_absent(peer)
    for name, array in studies.points()[0].items():
        np.save(tmp_path / f"{name}.npy", array)
    request = json.dumps({"workload": "mlp-64", "peer": peer, "folder": str(tmp_path), "trials": 2})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.studies", "--child", request],
        cwd=machine.ROOT, env={**os.environ, **PEERS[peer].environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sample = json.loads(done.stdout.splitlines()[-1])
    assert (sample["steps"], sample["parameters"]) == (300, 16 * 32 + 32 + 32 * 4 + 4)
    slow, fast = sample["accuracies"]
    assert slow < fast


def test_rates_are_spread_over_their_range() -> None:
    task = TASKS["mlp-64"]
    rates = task.rates()
    assert len(rates) == 64
    assert (rates[0], rates[-1]) == pytest.approx((1e-4, 1e-1))
    few = task.rates(4)
    assert few == [rates[number] for number in (8, 24, 40, 56)]
    assert task.rates(100) == rates


def test_every_epoch_has_each_row_at_most_once() -> None:
    task = replace(TASKS["mlp-64"], batch=4, steps=6)
    rows = list(task.batches(14, (0, 1)))
    assert [len(batch) for batch in rows] == [4] * 6
    for epoch in (rows[:3], rows[3:]):
        assert len(set(np.concatenate(epoch))) == 12
    assert task.epochs(14) == 2
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(list(task.batches(14, (0, 1)))))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "digits-100"])
def test_data_are_the_same_in_every_run_and_make_whole_epochs(name: str) -> None:
    task, (arrays, _), (again, _) = TASKS[name], studies.DATA[name](), studies.DATA[name]()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, again[key])
    assert len(arrays["x"]) % task.batch == 0
    assert task.epochs(len(arrays["x"])) * (len(arrays["x"]) // task.batch) == task.steps
    assert set(arrays["y"]) == set(range(task.classes))


def test_digits_make_whole_epochs_but_for_a_remainder() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    task, (arrays, _) = TASKS["digits-100"], studies.digits()
    trained = len(arrays["x"]) - len(arrays["x"]) // task.folds
    assert task.epochs(trained) * (trained // task.batch) == task.steps
    assert float(arrays["x"].max()) == 1.0


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is(name: str) -> None:
    task = TASKS[name]
    assert f"{task.trials} learning rates" in studies.describe(task)
    assert (f"{task.folds} folds" in studies.describe(task)) == (task.folds > 1)


def test_the_time_for_all_is_computed_from_few() -> None:
    calls = []

    def study(rates: Sequence[float], seed: int) -> Outcome:
        calls.append((len(rates), seed))
        return Outcome([0.5] * len(rates), 3)

    peer = Peer("Fake", (), (), lambda task, arrays: Program(study, lambda: 7))
    request = {"peer": "flax-rebuilt", "trials": None}
    sample = studies.measure(studies.SUITE.workloads["mlp-64"], peer, {}, request)
    assert calls == [(FEW["flax-rebuilt"], 0), (FEW["flax-rebuilt"], 1)]
    first, second = sample["calls"]
    assert sample["warm"] == second / 4
    assert sample["cold"] == pytest.approx(first + 15 * second)
    assert (sample["trainings"], sample["all trainings"], sample["parameters"]) == (4, 64, 7)


def test_fewer_trials_may_be_asked_for() -> None:
    seen = []

    def prepare(task: StudyTask, arrays: Any) -> Program:
        seen.append((task.trials, task.folds))
        return Program(lambda rates, seed: Outcome([0.5] * len(rates), 3), lambda: 7)

    request = {"peer": "fnn", "trials": 3}
    sample = studies.measure(studies.SUITE.workloads["digits-100"], Peer("Fake", (), (), prepare), {}, request)
    assert seen == [(3, 10)]
    assert (sample["trainings"], sample["all trainings"]) == (30, 30)
    assert harness.parse(studies.SUITE, ["--trials", "3"]).trials == 3


def test_compiling_is_counted_once_where_it_overlaps() -> None:
    assert studies.covered([]) == 0
    assert studies.covered([(2.0, 3.0), (0.0, 1.0)]) == 2.0
    assert studies.covered([(0.0, 4.0), (1.0, 2.0), (3.0, 5.0)]) == 5.0


def test_the_table_has_both_times_the_accuracies_and_what_is_different() -> None:
    sample = {
        "cold": 2.0, "warm": 0.01, "cold compiling": 1.5, "warm compiling": 0.005, "accuracies": [0.5, 0.9],
        "steps": 300, "parameters": 676, "trainings": 64, "all trainings": 64, "remarks": "64 networks side by side",
    }  # fmt: skip
    other = {"cold": 30.0, "warm": 0.5, "cold compiling": 0.0, "warm compiling": 0.0, "remarks": "", "trainings": 4}
    samples = {
        "fnn": [sample, {**sample, "cold": 3.0}, {**sample, "cold": 4.0}],
        "keras-tensorflow": [{**sample, **other, "steps": 312, "parameters": 700}],
    }
    shown = studies.table("mlp-64", samples, {})
    assert "| fnn | 3 s | 2 to 4 s | 1.00 | 1.5 s | 10 ms | 10 to 10 ms | 1.00 | 5 ms | 70.0% | 90.0% |" in shown
    assert "| 30 s | 30 to 30 s | 10.00 |  | 500 ms | 500 to 500 ms | 50.00 |  | 70.0% | 90.0% |" in shown
    title = PEERS["keras-tensorflow"].title
    assert f"Computed for all from fewer trainings: {title} (4)." in shown
    assert f"Not 300 steps: {title} (312)." in shown
    assert f"Not 676 parameters: {title} (700)." in shown
    assert "fnn: 64 networks side by side." in shown


def test_the_command_line_has_it() -> None:
    assert __main__.split(["studies", "--rounds", "1"]) == ("studies", ["--rounds", "1"])


def _skip_where_absent(peer: str) -> None:
    if absent := [package for package in PEERS[peer].packages if not machine.version(package)]:
        pytest.skip(f"{', '.join(absent)} is not installed")
