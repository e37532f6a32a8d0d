import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import harness, machine
from benchmarks.stopper import STOPPED
from tests.benchmarks import tiny


@pytest.fixture(autouse=True)
def same_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests after these keep their cores."""
    monkeypatch.setattr(machine, "hold", lambda count: None)


def test_the_child_gets_the_request_and_the_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.json"
    status = tiny.main(["--peers", "first", "second", "--rounds", "1", "--factor", "3", "--json", str(file)])
    assert status == 0
    found = json.loads(file.read_text())["workloads"]
    sample = found["double"]["samples"]["second"][0]
    assert (sample["seconds"], sample["factor"]) == (6.0, 3)
    assert sample["process"] > 0
    assert list(found["one"]["samples"]) == ["first"]
    out = capsys.readouterr().out
    assert "double: first took [6.0]" in out
    assert "Fastest kind: Second, 1.00 of the time of First." in out
    assert "closing over double, one" in out


def test_a_peer_that_fails_is_listed_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.main(["--workloads", "double", "--peers", "broken", "--rounds", "2"]) == 1
    out = capsys.readouterr().out
    assert "failed: Broken" in out
    assert "this peer cannot count" in out


def test_a_peer_that_is_not_installed_is_skipped_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.main(["--peers", "absent"]) == 1
    assert "Skipped: Absent, since no-such-distribution is not installed." in capsys.readouterr().out


def test_sigterm_prints_what_was_measured_and_leaves_no_data(tmp_path: Path) -> None:
    arguments = ["--workloads", "double", "--peers", "first", "slow", "--rounds", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.tiny", *arguments],
        cwd=machine.ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert "round 1, first" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == STOPPED
    assert "double: first took [6.0]" in out
    assert "closing over double" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--cores", "0"], ["--peers", "nobody"], ["--workloads", "rest"]])
def test_wrong_arguments_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        harness.parse(tiny.SUITE, wrong)
    assert "error" in capsys.readouterr().err


def test_by_default_everything_is_measured() -> None:
    options = harness.parse(tiny.SUITE, [])
    assert (options.workloads, options.peers) == (list(tiny.SUITE.workloads), list(tiny.SUITE.peers))
    assert (options.rounds, options.factor, options.plot, options.json) == (5, 7, None, None)
