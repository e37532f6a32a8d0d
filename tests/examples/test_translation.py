"""A tiny language is learned, translated in every way, and drawn."""

import gzip
import importlib
import itertools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import fnn

pytest.importorskip("tokenizers", reason="byte pairs are made by tokenizers, which is not installed")
sentences = importlib.import_module("sentences")
translation = importlib.import_module("translation")

WORDS = [
    {"a small": "ein kleiner", "a big": "ein großer", "a red": "ein roter"},
    {"dog": "Hund", "man": "Mann", "boy": "Junge", "bird": "Vogel"},
    {"runs": "läuft", "sleeps": "schläft", "sings": "singt"},
    {"": "", " here": " hier", " today": " heute"},
]
SMALL = {"blocks": 1, "heads": 2, "features": 32, "vocabulary": 330, "batch_size": 16, "rate": 0.0}


def write_captions(given: Path) -> None:
    """All sentences of a few words: nine in ten to learn from, and those of the test are new."""
    pairs = []
    for (a, x), (b, y), (c, z), (d, w) in itertools.product(*(part.items() for part in WORDS)):
        pairs.append((f"{a} {b} {c}{d}.", f"{x} {y} {z}{w}."))
    order = [pairs[place] for place in np.random.default_rng(0).permutation(len(pairs))]
    folder = given / "multi30k"
    folder.mkdir(parents=True)
    for name, part in {"train": order[16:], "val": order[:8], "test_2016_flickr": order[8:16]}.items():
        for side, language in enumerate(("en", "de")):
            text = "".join(f"{pair[side]}\n" for pair in part)
            (folder / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode()))


def test_sentences_that_were_never_seen_are_translated_and_a_prompt_too(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sacrebleu", reason="BLEU is computed by sacrebleu, which is not installed")
    write_captions(given)
    monkeypatch.setattr(translation, "ROOM", 12)
    found = translation.main(
        epochs=30, learning_rate=1e-2, beams=2, prompt="a big bird sings here.", output=tmp_path, **SMALL
    )
    assert set(found) == {"transformer, greedy", "transformer, 2 beams", "most similar sentence"}
    assert min(found["transformer, greedy"], found["transformer, 2 beams"]) > 60
    out = capsys.readouterr().out
    for method, score in found.items():
        assert f"{method:24}{score:8.2f}" in out
    assert out.endswith("\na big bird sings here.\nein großer Vogel singt hier.\n")
    for name in ("multi30k_curves.png", "multi30k_attention.png"):
        assert (tmp_path / name).stat().st_size > 5_000


def test_smoothing_is_that_of_optax() -> None:
    logits = jax.random.normal(jax.random.key(0), (2, 3, 7))
    target = np.array([[0, 6, 2], [3, 3, 1]])
    wanted = optax.losses.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(target, 7), 0.1))
    np.testing.assert_allclose(translation.smoothed(logits, target), wanted, rtol=1e-5)


def test_targets_are_moved_on_by_one_and_long_sentences_are_left_out() -> None:
    pairs = [("a dog", "ein Hund"), ("a dog " * 9, "ein Hund")]
    words = translation.Vocabularies(*(sentences.Tokens(side, 300) for side in zip(*pairs)))
    (ids, lengths, known), following, weight = translation.prepare(pairs, words, 6)
    assert ids.shape == known.shape == following.shape == (1, 6)
    assert words.source.decode(ids[0]) == "a dog"
    assert known[0, 0] == sentences.BEGIN
    real = int(weight.sum())
    assert following[0, real - 1] == sentences.END
    np.testing.assert_array_equal(known[0, 1:real], following[0, : real - 1])
    assert lengths.tolist() == [int((ids != sentences.PAD).sum())]
    assert len(translation.prepare(pairs, words)[1]) == 2


def test_attention_is_what_the_decoder_computes() -> None:
    """The weights drawn, times the values, are what cross-attention gives."""
    words = translation.Vocabularies(*(sentences.Tokens([text], 300) for text in ("a dog runs", "ein Hund")))
    options = {"blocks": 2, "heads": 1, "features": 8, "rate": 0.0}
    read, write = (make(300, **options) for make in (translation.reader, translation.writer))
    ids = np.array(words.source.encode(["a dog runs"]))
    written = np.array(words.target.encode(["ein Hund"], ends=True))
    lengths = np.array([ids.shape[1]])
    params, _ = translation.translator(read, write).init(jax.random.key(0), ids, lengths, written)
    drawn = translation.Translator(words, read, write, params).attention(write, "a dog runs", "ein Hund", 1)
    across, down, weights = drawn
    assert (len(across), len(down)) == weights.shape[::-1]
    assert down[-1] == "[end]"
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    memory, _ = read.apply(params["reader"], {}, ids, lengths)
    watched = fnn.capture(write, "decoder/blocks/*cross_attention")
    (_, outputs), _ = watched.apply(params["writer"], {}, written[:, :-1], memory, lengths)
    last = jax.tree.map(lambda leaf: leaf[1], params["writer"]["decoder"]["blocks"]["cross_attention"])
    values = memory[0] @ last["value_kernel"] + last["value_bias"]
    wanted = weights @ values @ last["out_kernel"] + last["out_bias"]
    np.testing.assert_allclose(outputs["decoder/blocks/1/cross_attention"][0], wanted, atol=1e-5)
