"""Sentences are read strictly, split honestly, and become ids and back."""

import gzip
import importlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

files = importlib.import_module("files")
sentences = importlib.import_module("sentences")


# SMS spam


def sms_lines(count: int) -> list[str]:
    return [f"{'spam' if number % 4 == 0 else 'ham'}\tmessage number {number}" for number in range(count)]


def write_sms(given: Path, content: bytes) -> Path:
    path = given / "sms-spam" / "SMSSpamCollection"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_messages_are_split_by_class_and_repeated_ones_are_kept_once(given: Path) -> None:
    lines = sms_lines(80)
    write_sms(given, "\n".join([*lines, *lines[:30]]).encode() + b"\n")
    data = sentences.sms()
    assert [len(part.texts) for part in data[:3]] == [56, 8, 16]
    assert len({text for part in data[:3] for text in part.texts}) == 80
    assert [int(part.labels.sum()) for part in data[:3]] == [14, 2, 4]
    for part in data[:3]:
        assert [int(text.split()[-1]) % 4 == 0 for text in part.texts] == part.labels.astype(bool).tolist()


def test_the_published_archive_of_messages_is_read_too(given: Path) -> None:
    path = given / "sms-spam" / "sms+spam+collection.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
        archive.writestr("SMSSpamCollection", "\n".join(sms_lines(40)))
    assert sum(len(part.texts) for part in sentences.sms()[:3]) == 40
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(files.DatasetError, match=r"collection\.zip: it cannot be unpacked"):
        sentences.sms()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(files.DatasetError, match="it has no SMSSpamCollection"):
        sentences.sms()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "line 1 is empty, wanted a sentence in every line"),
        (b"ham\thello\n\nspam\tbuy\n", "line 2 is empty"),
        (b"ham\thello\neggs\thello\n", r"line 2 is 'eggs\\thello', wanted ham or spam"),
        (b"ham hello\n", "line 1 is 'ham hello'"),
        (b"ham\t \n", "line 1 is"),
        (b"ham\t\xff\n", "wanted text in UTF-8"),
        (b"ham\thello\nspam\tbuy\n", "a class has 1 texts, wanted at least 4 of each"),
    ],
)
def test_a_damaged_collection_is_named_with_what_is_wrong(given: Path, content: bytes, complaint: str) -> None:
    write_sms(given, content)
    with pytest.raises(files.DatasetError, match=rf"SMSSpamCollection: .*{complaint}"):
        sentences.sms()


# BANKING77


def write_banking(given: Path, train: str, test: str = "text,category\nwhere?,card\n", names: str = "") -> None:
    folder = given / "banking77"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_bytes(train.encode())
    (folder / "test.csv").write_bytes(test.encode())
    (folder / "categories.json").write_text(names or json.dumps(["card", "cash"]))


def banking_rows(count: int) -> str:
    rows = [f'"first line {number},\nand another",{("card", "cash")[number % 2]}' for number in range(count)]
    return "\n".join(["text,category", *rows]) + "\n"


def test_questions_may_span_lines_and_the_test_set_is_the_official_one(given: Path) -> None:
    write_banking(given, banking_rows(40))
    data = sentences.banking77()
    assert [len(part.texts) for part in data[:3]] == [36, 4, 1]
    assert data.validation.labels.tolist().count(0) == 2
    assert data.test.texts == ["where?"]
    assert (data.test.labels.tolist(), data.classes) == ([0], ("card", "cash"))
    assert all(text.count("\n") == 1 for text in data.train.texts)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"train": ""}, "train.csv: its first line is '', wanted text,category"),
        ({"train": "a,b\nwhere?,card\n"}, "train.csv: its first line is 'a,b'"),
        ({"train": "text,category\nwhere?,loan\n"}, r"train.csv: line 2 holds \['where\?', 'loan'\]"),
        ({"train": banking_rows(40), "test": "text,category\nwhere?\n"}, "test.csv: line 2 holds"),
        ({"train": banking_rows(4)}, "a class has 2 texts"),
        ({"train": banking_rows(40), "names": "[card"}, "categories.json: it cannot be read"),
    ],
)
def test_a_damaged_table_is_named_with_what_is_wrong(given: Path, parts: dict[str, str], complaint: str) -> None:
    write_banking(given, **parts)
    with pytest.raises(files.DatasetError, match=complaint):
        sentences.banking77()


# Pairs


def write_multi30k(given: Path, **changes: bytes) -> None:
    folder = given / "multi30k"
    folder.mkdir(parents=True)
    for name in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de"):
            content = "".join(f"{language} {name} {number}\n" for number in range(3)).encode()
            packed = changes.get(f"{name}_{language}", gzip.compress(content, mtime=0))
            (folder / f"{name}.{language}.gz").write_bytes(packed)


def test_captions_stand_beside_their_translations(given: Path) -> None:
    write_multi30k(given)
    data = sentences.multi30k()
    assert data.train[1] == ("en train 1", "de train 1")
    assert data.validation[0] == ("en val 0", "de val 0")
    assert data.test[2] == ("en test_2016_flickr 2", "de test_2016_flickr 2")
    assert data.languages == ("English", "German")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (gzip.compress(b"one\ntwo\n", mtime=0), r"val\.de\.gz: it has 2 lines, wanted the 3 of val\.en\.gz"),
        (gzip.compress(b"one\n\ntwo\n", mtime=0), r"val\.de\.gz: line 2 is empty"),
        (gzip.compress(b"one\n\xff\ntwo\n", mtime=0), r"val\.de\.gz: .* wanted text in UTF-8"),
        (gzip.compress(b"one\ntwo\n", mtime=0)[:-4], r"val\.de\.gz: it cannot be unpacked"),
    ],
)
def test_damaged_captions_are_named_with_what_is_wrong(given: Path, content: bytes, complaint: str) -> None:
    write_multi30k(given, val_de=content)
    with pytest.raises(files.DatasetError, match=complaint):
        sentences.multi30k()


def write_tatoeba(given: Path, content: str) -> None:
    path = given / "tatoeba-spa-eng" / "spa-eng.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("spa-eng/_about.txt", "hello")
        archive.writestr("spa-eng/spa.txt", content)


def test_translations_of_one_sentence_are_not_divided(given: Path) -> None:
    write_tatoeba(given, "".join(f"word {n}\tpalabra {n} {k}\n" for n in range(40) for k in range(3)))
    data = sentences.tatoeba()
    assert [len(part) for part in data[:3]] == [96, 4, 4]
    sources = [{pair[0] for pair in part} for part in data[:3]]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 40
    assert all(source.split()[1] == target.split()[1] for part in data[:3] for source, target in part)
    assert all(target.endswith(" 0") for part in data[1:3] for _, target in part)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("Go.\tVe.\nStop.\n", "line 2 is 'Stop.', wanted a sentence, a tab"),
        ("Go.\tVe.\tVaya.\n", "line 1 is"),
        ("Go.\t \n", "line 1 is"),
        ("Go.\tVe.\n", "it has 1 English sentences, wanted at least 10"),
    ],
)
def test_damaged_pairs_are_named_with_what_is_wrong(given: Path, content: str, complaint: str) -> None:
    write_tatoeba(given, content)
    with pytest.raises(files.DatasetError, match=rf"spa-eng\.zip: .*{complaint}"):
        sentences.tatoeba()


def test_where_pairs_are_missing_it_is_told_how_to_get_them(cache: Path) -> None:
    with pytest.raises(files.DatasetError, match=r"(?s)download.*spa-eng\.zip.*by hand.*FNN_DATA"):
        sentences.tatoeba()


# Tokens


def test_texts_become_ids_and_back_whatever_they_hold() -> None:
    pytest.importorskip("tokenizers", reason="byte pairs are made by tokenizers, which is not installed")
    texts = ["the dog runs", "the dog sleeps", "the cat runs"] * 5
    tokens = sentences.Tokens(texts, 300)
    assert 259 < len(tokens) <= 300
    for text in ("the dog runs", "Ñandú, 🙂 and 中文", "x\ty"):
        ids = tokens.encode([text], ends=True)[0]
        assert (ids[0], ids[-1]) == (sentences.BEGIN, sentences.END)
        assert max(ids) < len(tokens)
        assert tokens.decode(ids) == text
    assert len(tokens.encode(["the dog"])[0]) < len(tokens.encode(["qzv jkx"])[0])
    assert tokens.pieces(tokens.encode(["the dog"], ends=True)[0]) == ["[begin]", "the", "dog", "[end]"]
    assert sentences.PAD not in tokens.encode(["[pad]"])[0]  # a text that spells a mark is no mark
    lower = sentences.Tokens(texts, 300, lowercase=True)
    assert lower.encode(["The DOG"]) == lower.encode(["the dog"])


def test_rows_are_filled_up_or_cut() -> None:
    ids, lengths = sentences.padded([[5, 6, 7], [8]])
    assert (ids.tolist(), lengths.tolist()) == ([[5, 6, 7], [8, 0, 0]], [3, 1])
    ids, lengths = sentences.padded([[5, 6, 7], [8]], 2)
    assert (ids.tolist(), lengths.tolist()) == ([[5, 6], [8, 0]], [2, 1])
    assert (ids.dtype, lengths.dtype) == (np.int32, np.int32)


# Real files


def test_real_sets_have_their_published_sizes(data_folder: Path) -> None:
    messages = sentences.sms()
    assert [len(part.texts) for part in messages[:3]] == [3620, 517, 1034]
    assert sum(int(part.labels.sum()) for part in messages[:3]) == 653  # 747 with those that are repeated
    questions = sentences.banking77()
    assert [len(part.texts) for part in questions[:3]] == [9003, 1000, 3080]
    assert np.bincount(questions.test.labels).tolist() == [40] * 77
    captions = sentences.multi30k()
    assert [len(part) for part in captions[:3]] == [29000, 1014, 1000]
    assert captions.train[0][0] == "Two young, White males are outside near many bushes."
    assert captions.train[0][1] == "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
    pairs = sentences.tatoeba()
    assert [len(part) for part in pairs[:3]] == [116635, 1000, 1000]
