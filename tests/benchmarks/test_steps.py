import dataclasses

import pytest

from benchmarks import machine, steps, workloads
from benchmarks.peers import PEERS, SCANNING


def test_the_table_has_medians_ratios_and_the_share_of_the_rate() -> None:
    operations = workloads.operations(workloads.TASKS["cnn-32"])
    parameters = workloads.NETWORKS["cnn"].parameters
    samples = {
        "fnn": [{"seconds": seconds, "parameters": parameters} for seconds in (0.01, 0.012, 0.011)],
        "pytorch": [{"seconds": 0.022, "parameters": parameters}],
    }
    shown = steps.table("cnn-32", samples, {steps.RATE: operations / 0.022 / 1e9})
    assert "| fnn | 11 ms | 10 to 12 ms | 1.00 | 200.0% |" in shown
    assert "| PyTorch | 22 ms | 22 to 22 ms | 2.00 | 100.0% |" in shown
    assert "parameters" not in shown


def test_a_peer_with_another_network_is_named() -> None:
    samples = {"fnn": [{"seconds": 1.0, "parameters": 3}]}
    assert "Not 225034 parameters: fnn." in steps.table("cnn-32", samples, {steps.RATE: 1.0})


def test_memory_and_compilation_are_shown_where_they_were_measured() -> None:
    sample = {"import": 1.0, "first": 2.0, "started": 3.0, "peak_bytes": 5e6}
    analysed = sample | {"lower": 0.1, "compile": 0.2, "temporary_bytes": 7e6}
    samples = {"fnn": [analysed], "pytorch": [sample]}
    shown = steps.closing({"cnn-32": samples, "cnn-128": samples})
    assert "| fnn | 1 s | 2 s | 3 s | 100 ms | 200 ms |" in shown
    assert "| PyTorch | 1 s | 2 s | 3 s |  |  |" in shown
    assert "| fnn | 5.0 MB | 7.0 MB |" in shown
    assert steps.closing({}) == ""


def test_only_jax_peers_scan() -> None:
    assert {PEERS[name].family for name in SCANNING} == {PEERS["fnn"].family}
    assert steps.SUITE.workloads["scan-20"].peers == SCANNING


@pytest.mark.parametrize("name", SCANNING)
def test_peers_build_the_same_network(name: str) -> None:
    peer = PEERS[name]
    if absent := [package for package in peer.packages if not machine.version(package)]:
        pytest.skip(f"{', '.join(absent)} is not installed")
    task = dataclasses.replace(workloads.TASKS["mlp-128"], batch=2)
    program = peer.prepare(task, workloads.arrays(task))
    assert program.parameters == workloads.NETWORKS["mlp"].parameters
    assert program.lower is not None
