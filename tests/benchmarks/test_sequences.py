import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__, harness, machine, sequences, steps
from benchmarks.harness import Peer
from benchmarks.peers import Program
from benchmarks.sequence_peers import COMPILED, GENERATING, PEERS, TRAINING, SequenceTask
from benchmarks.sequences import TASKS

TINY: dict[str, Any] = {"batch": 2, "vocabulary": 7, "width": 8, "blocks": 2, "heads": 2, "positions": 6, "length": 5}
SMALL = SequenceTask("gpt", **TINY)


def test_operations_of_the_gpt_are_those_counted_by_hand() -> None:
    block = 12 * 256**2 + 2 * 64 * 256  # products with weights, scores of 64 keys and sums of 64 values
    assert sequences.operations(TASKS["gpt-32"]) == 6 * 32 * 64 * (4 * block + 256 * 65)


def test_operations_of_the_lstm_are_those_counted_by_hand() -> None:
    assert sequences.operations(TASKS["lstm-32"]) == 6 * 32 * 64 * (2 * 256 * 1024 + 256 * 65)


def test_the_large_gpt_is_gpt_2() -> None:
    task = TASKS["gpt2-16"]
    assert sequences.parameters(task) == 124_475_904  # 124 439 808, and 47 more rows of the table
    weights = 12 * 12 * 768**2 + 768 * 50304
    assert sequences.operations(task) == 6 * 16 * 1024 * (weights + 12 * 2 * 1024 * 768)


def test_ids_are_the_same_in_every_process_and_the_target_is_the_next_one() -> None:
    first, second = sequences.arrays(TASKS["gpt-32"]), sequences.arrays(TASKS["gpt-32"])
    assert (first["x"].shape, first["x"].dtype) == ((32, 64), np.int32)
    np.testing.assert_array_equal(first["x"][:, 1:], first["y"][:, :-1])
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert {name: ids.shape for name, ids in sequences.arrays(TASKS["generate-16"]).items()} == {"x": (16, 16)}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is(name: str) -> None:
    assert f"batch {TASKS[name].batch}" in sequences.describe(TASKS[name])


def test_the_prompt_and_what_follows_have_positions() -> None:
    assert all(task.length + task.tokens <= task.positions for task in TASKS.values() if task.network == "gpt")


def test_the_table_of_a_training_has_the_share_of_the_rate_and_the_first_loss() -> None:
    task = TASKS["lstm-32"]
    sample = {"parameters": sequences.parameters(task), "result": 4.174}
    samples = {
        "fnn": [sample | {"seconds": seconds} for seconds in (0.01, 0.012, 0.011)],
        "pytorch": [sample | {"seconds": 0.022, "parameters": 3}],
    }
    shown = sequences.table("lstm-32", samples, {steps.RATE: sequences.operations(task) / 0.022 / 1e9})
    assert "| fnn | 11 ms | 10 to 12 ms | 1.00 | 186182 | 200.0% | 4.17 |" in shown
    assert "| PyTorch | 22 ms | 22 to 22 ms | 2.00 | 93091 | 100.0% | 4.17 |" in shown
    assert "Not 558657 parameters: PyTorch (3)." in shown


def test_the_share_of_the_large_gpt_is_that_of_products_in_bfloat16() -> None:
    task = TASKS["gpt2-16"]
    samples = {"fnn": [{"seconds": 0.1, "parameters": sequences.parameters(task), "result": 10.8}]}
    rates = {steps.RATE: 1.0, sequences.HALF_RATE: sequences.operations(task) / 0.05 / 1e9}
    assert "| 163840 | 50.0% | 10.80 |" in sequences.table("gpt2-16", samples, rates)


@pytest.mark.parametrize(("name", "dtype"), [("gpt2-16", "bfloat16"), ("gpt-32", "float32")])
def test_a_workload_in_bfloat16_stays_one(name: str, dtype: str) -> None:
    prepared = []

    def prepare(task: SequenceTask, arrays: Any) -> Program:
        prepared.append(task.dtype)
        return Program(lambda: 1.0, 3)

    workload = sequences.SUITE.workloads[name]
    request = {"dtype": "float32", "seconds": 0, "started": 0.0}
    sequences.measure(workload, Peer("Fake", (), (), prepare), {}, request)
    assert prepared == [dtype]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_large_gpt_is_measured_on_a_gpu_or_when_asked_for(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "backend", lambda: backend)
    usual = [name for name in TASKS if name != "gpt2-16" or backend == "gpu"]
    assert harness.parse(sequences.SUITE, []).workloads == usual
    assert harness.parse(sequences.SUITE, ["--workloads", "gpt2-16"]).workloads == ["gpt2-16"]


@pytest.mark.parametrize(("names", "rated"), [(["gpt-32"], False), (["gpt-32", "gpt2-16"], True)])
def test_products_in_bfloat16_are_measured_where_they_are_needed(
    names: list[str], rated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"float32": 1e9, "bfloat16": 2e9}
    monkeypatch.setattr(machine, "products", lambda dtype: {"device": "none", "rate": rates[dtype]})
    facts = sequences.SUITE.facts(harness.parse(sequences.SUITE, ["--workloads", *names]))
    assert (facts[steps.RATE], facts.get(sequences.HALF_RATE)) == (1.0, 2.0 if rated else None)


def test_the_table_of_a_generation_has_tokens_per_second() -> None:
    sample = {"parameters": sequences.parameters(TASKS["generate-1"]), "result": 256.0}
    samples = {"fnn": [sample | {"seconds": 0.5}], "transformers": [sample | {"seconds": 2.0, "result": 200.0}]}
    shown = sequences.table("generate-1", samples, {})
    assert "| fnn | 500 ms | 500 to 500 ms | 1.00 | 512 |" in shown
    assert "| Transformers on PyTorch | 2 s | 2 to 2 s | 4.00 | 100 |" in shown
    assert "Not 256 tokens: Transformers on PyTorch (200)." in shown
    assert "parameters" not in shown


@pytest.mark.parametrize("network", ["gpt", "lstm"])
@pytest.mark.parametrize("name", TRAINING)
def test_peers_train_the_same_network(name: str, network: str) -> None:
    task = replace(SMALL, network=network)
    program = _prepare(name, task)
    biases = 4 * task.width if (name, network) == ("pytorch", "lstm") else 0  # it has two for each gate
    assert program.parameters == sequences.parameters(task) + biases
    losses = [float(program.call()) for _ in range(6)]
    assert losses[0] == pytest.approx(math.log(task.vocabulary), abs=1.0)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", COMPILED)
def test_peers_train_the_large_gpt_made_tiny_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "pytorch-compiled":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # kernels take minutes
    task = replace(TASKS["gpt2-16"], **TINY)
    program = _prepare(name, task)
    assert program.parameters == sequences.parameters(task)
    losses = [float(program.call()) for _ in range(12)]
    assert losses[0] == pytest.approx(math.log(task.vocabulary), abs=1.0)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", GENERATING)
def test_peers_generate_all_tokens(name: str) -> None:
    task = replace(SMALL, mode="generate", length=2, tokens=4)
    program = _prepare(name, task)
    assert program.parameters == sequences.parameters(task)
    assert program.call() == 2 * 4


def test_the_command_line_has_it() -> None:
    assert __main__.split(["sequences", "--rounds", "1"]) == ("sequences", ["--rounds", "1"])


def _prepare(name: str, task: SequenceTask) -> Program:
    if absent := [package for package in PEERS[name].packages if not machine.version(package)]:
        pytest.skip(f"{', '.join(absent)} is not installed")
    return PEERS[name].prepare(task, sequences.arrays(task))
