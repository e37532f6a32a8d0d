import subprocess
import sys

from benchmarks import machine


def test_versions_of_what_is_installed_and_what_is_not() -> None:
    assert machine.version("jax")
    assert machine.version("no-such-distribution") is None
    assert "no-such-distribution None" in machine.facts(["no-such-distribution"])["versions"]


def test_memory_grows_by_what_is_used() -> None:
    program = (
        "from benchmarks.machine import peak_bytes; before = peak_bytes(); block = bytearray(b'x' * 50_000_000); "
        "print(peak_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=machine.ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 45_000_000


def test_calls_are_warmed_up_and_counted() -> None:
    calls: list[None] = []
    taken = machine.times(lambda: calls.append(None), seconds=0, warm=0, least=7)
    assert len(taken) == len(calls) == 7


def test_warming_up_ends_early_when_it_takes_long() -> None:
    calls: list[None] = []
    machine.times(lambda: calls.append(None), seconds=-1, warm=3, least=2)
    assert len(calls) == 2
