from benchmarks import memory, workloads
from benchmarks.peers import PEERS


def test_the_table_has_megabytes_and_the_ratio() -> None:
    shown = memory.table({"cnn-32": {"fnn": 2_000_000, "plain-jax": 5_000_000}})
    assert "| cnn-32 | 2.0 MB | 5.0 MB | 2.50 |" in shown


def test_what_is_compared_exists() -> None:
    assert set(memory.STEPS) <= set(workloads.TASKS)
    assert set(memory.SIDES) <= set(PEERS)
