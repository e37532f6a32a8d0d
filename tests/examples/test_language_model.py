"""The language model learns, writes, and goes on from a prompt."""

import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

texts = importlib.import_module("texts")
language_model = importlib.import_module("language_model")
files = importlib.import_module("files")

SMALL = {"blocks": 1, "features": 32, "heads": 2, "length": 16, "batch_size": 8, "characters": 12}


def test_both_networks_learn_to_write_and_the_curves_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = language_model.main(steps=260, output=tmp_path, **SMALL)
    assert set(losses) == {"gpt", "lstm"}
    assert max(losses.values()) < 3.1  # one letter in 60 at random is 4.1
    assert (tmp_path / "learning_curves.png").stat().st_size > 5_000
    out = capsys.readouterr().out
    assert "sonnets: 12266 characters" in out
    assert "gpt writes:" in out


def test_a_prompt_is_gone_on_from_and_unknown_characters_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("abcd " * 200)
    options = (
        f"--data {tmp_path / 'text.txt'} --models lstm --blocks 1 --features 16 --length 8 --steps 4 --characters 6"
    )
    arguments = ["language_model.py", *options.split(), "--output", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--prompt", "abc"])
    runpy.run_path(str(language_model.__file__), run_name="__main__")
    written = capsys.readouterr().out.split("lstm writes:\n")[1].split("\n\npicture")[0]
    assert written.startswith("abc")
    assert len(written.rstrip("\n")) == 9
    monkeypatch.setattr(sys, "argv", [*arguments, "--prompt", "xyz"])
    with pytest.raises(SystemExit, match="has no 'x', 'y', 'z'"):
        runpy.run_path(str(language_model.__file__), run_name="__main__")


def test_characters_are_numbers_and_back() -> None:
    known = texts.Characters.of("hello")
    assert known.known == "ehlo"
    assert known.decode(known.encode("hole")) == "hole"


def test_windows_are_followed_by_what_comes_next() -> None:
    x, target = texts.windows(np.arange(11), 4)
    assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert target.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(ValueError, match="shorter than a window"):
        texts.windows(np.arange(4), 4)


def test_shakespeare_is_read_where_it_is(data_folder: Path) -> None:
    text = texts.load("tinyshakespeare")
    assert len(text) == 1_115_394
    assert len(set(text)) == 65


def test_a_missing_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(files.DatasetError, match="cannot be read"):
        texts.load(str(tmp_path / "nothing.txt"))
