"""The study chooses by validation rows and tests once, and its folder holds what was measured."""

import importlib
import json
from pathlib import Path

import pytest

hyperparameter_study = importlib.import_module("hyperparameter_study")

PICTURES = ("curves.png", "slices.png", "parallel_coordinates.png")


def test_the_winners_are_tested_once_and_the_folder_has_every_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    accuracy = hyperparameter_study.main(
        "digits", trials=8, seeds=2, steps=60, examples=300, folder=folder, output=tmp_path
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 300 images to train on and to choose by, 300 to test, 64 pixels each"
    assert lines[1] == "8 trials x 2 seeds: 16 runs, one program to compile"
    assert lines[-1] == f"test accuracy of 10 networks together: {accuracy:.4f}"
    assert accuracy > 0.5  # a tenth is luck
    assert sum(line.startswith("importance: ") for line in lines) == 1
    records = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert {(record["trial"], record["seed"]) for record in records} == {(n, s) for n in range(8) for s in range(2)}
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PICTURES)


def test_a_width_is_varied_where_there_are_several() -> None:
    assert "width" not in hyperparameter_study.space([64])
    assert hyperparameter_study.space([32, 64])["width"].static
