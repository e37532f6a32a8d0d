from benchmarks import machine


def test_versions_of_what_is_installed_and_what_is_not() -> None:
    assert machine.version("jax")
    assert machine.version("no-such-distribution") is None
    assert "no-such-distribution None" in machine.facts(["no-such-distribution"])["versions"]


def test_memory_grows_when_it_is_used() -> None:
    before = machine.peak_bytes()
    block = bytearray(b"x" * (before + 1_000_000))
    assert machine.peak_bytes() > len(block)


def test_calls_are_warmed_up_and_counted() -> None:
    calls: list[None] = []
    taken = machine.times(lambda: calls.append(None), seconds=0, warm=0, least=7)
    assert len(taken) == len(calls) == 7


def test_warming_up_ends_early_when_it_takes_long() -> None:
    calls: list[None] = []
    machine.times(lambda: calls.append(None), seconds=-1, warm=3, least=2)
    assert len(calls) == 2
