"""Texts are told apart by both networks, padding or not, and the regression beside them."""

import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="byte pairs are made by tokenizers, which is not installed")
files = importlib.import_module("files")
text_classification = importlib.import_module("text_classification")


def write_messages(given: Path, count: int) -> None:
    """Words without meaning; spam ends with "win now"."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        words = [f"w{word}" for word in random.integers(0, 30, random.integers(2, 6))]
        spam = number % 3 == 0
        lines.append(("spam" if spam else "ham") + "\t" + " ".join([*words, *(("win", "now") if spam else ())]))
    path = given / "sms-spam" / "SMSSpamCollection"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines))


def test_spam_is_found_and_a_text_of_ones_own_is_judged(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_messages(given, 600)
    monkeypatch.setattr(text_classification, "SETTINGS", {"sms": text_classification.Setting(300, 12, 8, 0.0, 0.02, 6)})
    found = text_classification.main("sms", text="w1 w2 win now", output=tmp_path)
    out = capsys.readouterr().out
    assert set(found) == {"lstm (fnn)", "TF-IDF + logistic regression"}
    for method, (accuracy, f1) in found.items():
        assert min(accuracy, f1) > 0.9  # two thirds are ham
        assert re.search(rf"^{re.escape(method)} .*{accuracy:.4f} +{f1:.4f}$", out, re.MULTILINE)
    assert re.search(r"w1 w2 win now\n    spam \(\d+%\)\n$", out)
    for name in ("sms_curves.png", "sms_confusion.png"):
        assert (tmp_path / name).stat().st_size > 5_000


@pytest.mark.parametrize("name", ["sms", "banking77"])
def test_the_order_of_words_is_seen_and_padding_is_not(name: str) -> None:
    net = text_classification.NETWORKS[name](20, 3, 8, 0.1)
    ids, lengths = (
        np.array([[3, 4, 5, 0, 0], [3, 4, 5, 11, 12], [4, 3, 5, 0, 0], [6, 7, 8, 9, 3]]),
        np.array([3, 3, 3, 5]),
    )
    params, state = jax.jit(net.init)(jax.random.key(0), ids, lengths)
    apply = jax.jit(net.apply)
    first, other, turned, _ = apply(params, state, ids, lengths)[0]
    np.testing.assert_allclose(other, first, atol=1e-5)
    assert np.abs(turned - first).max() > 1e-4
    alone, _ = apply(params, state, ids[:1, :3], lengths[:1])
    np.testing.assert_allclose(alone[0], first, atol=1e-5)


def test_scores_are_those_of_the_second_class_of_two_and_the_mean_of_more() -> None:
    accuracy, f1 = text_classification.scores(np.array([[6, 2], [1, 3]]))
    assert (accuracy, f1) == pytest.approx((9 / 12, 2 * 3 / (2 * 3 + 2 + 1)))
    accuracy, f1 = text_classification.scores(np.array([[2, 0, 0], [0, 1, 1], [0, 0, 0]]))
    assert (accuracy, f1) == pytest.approx((3 / 4, (1 + 2 / 3 + 0) / 3))


def test_the_most_confused_pairs_come_first() -> None:
    counts = np.array([[9, 1, 0], [0, 9, 5], [2, 0, 9]])
    assert text_classification.most_confused(counts) == [(1, 2), (2, 0), (0, 1)]


def test_the_script_reads_its_options_and_names_confused_intents(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = given / "banking77"
    folder.mkdir(parents=True)
    classes = ["card", "cash", "loan"]
    rows = [
        f"what about {'money' if number % 5 else classes[number % 3]}?,{classes[number % 3]}" for number in range(60)
    ]
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("\n".join(["text,category", *rows]))
    (folder / "categories.json").write_text(json.dumps(classes))
    options = f"--data banking77 --epochs 2 --examples 40 --seed 1 --output {tmp_path / 'new'}"
    monkeypatch.setattr(sys, "argv", ["text_classification.py", *options.split(), "--text", "Where is my card?"])
    runpy.run_path(str(text_classification.__file__), run_name="__main__")
    out = capsys.readouterr().out
    assert out.startswith("banking77: 40 texts to train on, 6 to choose by, 60 to test, 3 classes")
    assert re.search(r"most often confused:\n +\d+ of 20 (card|cash|loan) -> (card|cash|loan)\n", out)
    assert "Where is my card?" in out
    for name in ("banking77_curves.png", "banking77_confusion.png"):
        assert (tmp_path / "new" / name).stat().st_size > 5_000


def test_a_damaged_file_ends_the_script_with_its_name(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_messages(given, 3)
    monkeypatch.setattr(sys, "argv", ["text_classification.py"])
    with pytest.raises(SystemExit, match=r"SMSSpamCollection: a class has 1 texts"):
        runpy.run_path(str(text_classification.__file__), run_name="__main__")
