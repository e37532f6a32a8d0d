"""The main job of a newcomer runs from data to pictures, and says how good it is."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

image_classification = importlib.import_module("image_classification")

PICTURES = ("learning_curves.png", "confusion.png", "filters.png")


def test_the_accuracy_returned_is_the_one_printed_and_the_pictures_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = image_classification.main("digits", epochs=8, examples=200, batch_size=16, hidden=16, output=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 180 images to train on, 20 to watch, 200 to test, (8, 8, 1) each"
    assert lines[-1] == f"test accuracy: {accuracy:.4f}"
    assert accuracy > 0.5  # a tenth is luck
    for name in PICTURES:
        assert (tmp_path / name).stat().st_size > 5_000


def test_the_script_reads_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--data digits --epochs 1 --examples 40 --batch-size 8 --hidden 4 --learning-rate 0.01 --seed 1 --output"
    monkeypatch.setattr(sys, "argv", ["image_classification.py", *options.split(), str(tmp_path / "new")])
    runpy.run_path(str(image_classification.__file__), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits: 36 images to train on, 4 to watch")
    assert lines[1].endswith("parameters")
    assert all((tmp_path / "new" / name).is_file() for name in PICTURES)
