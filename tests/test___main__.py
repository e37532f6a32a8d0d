"""Files are looked at from the command line, with exit statuses for scripts."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.__main__ import main

TREE = {"a": jnp.ones((2, 3)), "key": jax.random.key(0), "steps": 7, "on": jnp.array([True, False])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    fnn.save(tmp_path / "a.safetensors", TREE, note={"of": "x"})
    return tmp_path / "a.safetensors"


def test_info_is_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": 4 leaves, 10 numbers, 34 B, written by fnn 0.1.0")
    assert [line.split() for line in lines[1:4]] == [
        ["path", "dtype", "shape", "bytes"],
        ["a", "float32", "[2,", "3]", "24", "B"],
        ["key", "key<fry>", "[]", "8", "B"],
    ]
    assert lines[-1].strip() == "note: {'of': 'x'}"


def test_names_and_notes_command_no_terminal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with half a surrogate pair ended ``info`` with an error of its own, and escapes reached the terminal."""
    fnn.save(file, {"\x1b[2J": 1, "\ud800": 2}, note="\x1b[31m")
    assert main(["info", str(file)]) == 0
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert "\x1b" not in shown
    assert r"\x1b[2J" in shown
    assert r"\ud800" in shown


def test_verify_tells_whole_from_damaged(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(file)]) == 0
    assert main(["verify", str(file.parent)]) == 0
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert main(["verify", str(file.parent)]) == 2
    assert "DAMAGED" in capsys.readouterr().out
    assert main(["verify", str(file.parent / "none")]) == 2
    (file.parent / "empty").mkdir()
    assert main(["verify", str(file.parent / "empty")]) == 2


def test_diff_shows_what_differs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = file.with_name("b.safetensors")
    fnn.save(other, TREE)
    assert main(["diff", str(file), str(other)]) == 0
    assert capsys.readouterr().out == "the same 4 leaves\n"
    changed = {**TREE, "a": TREE["a"].at[0, 0].set(3), "steps": 8, "on": jnp.array([True, True]), "new": np.zeros(1)}
    fnn.save(other, changed)
    assert main(["diff", str(file), str(other)]) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["a", "float32[2,3]", "float32[2,3]", "differ", "by", "up", "to", "2"],
        ["on", "bool[2]", "bool[2]", "1", "of", "2", "differ"],
        ["steps", "int", "7", "int", "8"],
        ["new", "-", "float64[1]"],
    ]


def test_a_missing_file_is_told_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
