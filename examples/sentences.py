"""Sentences for the examples: messages with a class, pairs in two languages, and byte-pair tokens as numbers.

`files` says where the data is looked for. Readers check what they read: a damaged file is an error that names it.
"""

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from files import DatasetError, File, damaged, fetch, locate
from sklearn.model_selection import train_test_split

Pair = tuple[str, str]
PAD, BEGIN, END = 0, 1, 2  # the first ids of every vocabulary


class Part(NamedTuple):
    """Texts and the number of the class of each, ``(texts,)`` int32."""

    texts: list[str]
    labels: np.ndarray


class Labelled(NamedTuple):
    """Texts with classes: to learn from, to choose by, and to be tested on once."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]


class Parallel(NamedTuple):
    """Pairs of a sentence and its translation, split likewise; ``languages`` are the two names."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    languages: tuple[str, str]


# Messages with a class

_SMS = File("SMSSpamCollection", "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d")
_SMS_ARCHIVE = File(
    "sms+spam+collection.zip",
    "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
    (
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "https://archive.ics.uci.edu/ml/machine-learning-databases/00228/smsspamcollection.zip",
    ),
)
_BANKING = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data/"
_BANKING_FILES = [
    File(name, sha256, (_BANKING + name,))
    for name, sha256 in {
        "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
        "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
        "categories.json": "53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
    }.items()
]


def sms() -> Labelled:
    """The SMS Spam Collection: English text messages, about one in eight of them spam.

    Messages that occur several times are kept once, or some of the test set would have been learned by heart. There is
    no official split: a fifth is the test set and a tenth is for choosing, drawn by a fixed seed in each class.
    """
    path = locate("sms-spam", _SMS) or fetch("sms-spam", [_SMS_ARCHIVE])[0]
    content = path.read_bytes() if path.name == _SMS.name else read_zipped(path, _SMS.name)
    rows: dict[str, str] = {}
    for number, line in enumerate(_lines(path, content), 1):
        label, tab, text = line.partition("\t")
        if label not in ("ham", "spam") or not tab or not text.strip():
            raise damaged(path, f"line {number} is {line[:40]!r}", "ham or spam, a tab, and a message")
        rows.setdefault(text, label)
    labels = np.array([label == "spam" for label in rows.values()], np.int32)
    everything = _enough(path, Part(list(rows), labels), 2)
    rest, test = _split(everything, 0.2)
    return Labelled(*_split(rest, 0.125), test, ("ham", "spam"))


def banking77() -> Labelled:
    """BANKING77: what customers ask their bank, and which of 77 intents they have.

    The test set is the official one; a tenth of the official training set is for choosing.
    """
    *tables, names = fetch("banking77", _BANKING_FILES)
    try:
        classes = tuple(json.loads(names.read_bytes()))
    except (ValueError, TypeError) as error:
        raise damaged(names, f"it cannot be read ({error})", "a list of names in JSON") from error
    official, test = (_table(path, classes) for path in tables)
    return Labelled(*_split(_enough(tables[0], official, len(classes)), 0.1), test, classes)


def _table(path: Path, classes: tuple[str, ...]) -> Part:
    numbers = {name: number for number, name in enumerate(classes)}
    rows = csv.reader(io.StringIO(_text(path, path.read_bytes()), newline=""))
    if (header := next(rows, [])) != ["text", "category"]:
        raise damaged(path, f"its first line is {','.join(header)[:40]!r}", "text,category")
    texts, labels = [], []
    for row in rows:
        if len(row) != 2 or not row[0].strip() or row[1] not in numbers:
            raise damaged(path, f"line {rows.line_num} holds {row}", "a text and one of the categories")
        texts.append(row[0].strip())
        labels.append(numbers[row[1]])
    return Part(texts, np.array(labels, np.int32))


def _enough(path: Path, part: Part, classes: int) -> Part:
    counts = np.bincount(part.labels, minlength=classes) if part.texts else np.zeros(classes, int)
    if counts.min() < 4:
        raise damaged(path, f"a class has {counts.min()} texts", "at least 4 of each")
    return part


def _split(part: Part, share: float) -> tuple[Part, Part]:
    """A larger and a smaller part with the same shares of all classes, by a fixed seed."""
    wanted = max(round(share * len(part.texts)), len(np.unique(part.labels)))
    halves: Any = train_test_split(*part, test_size=wanted, stratify=part.labels, random_state=0)
    return Part(halves[0], halves[2]), Part(halves[1], halves[3])


# Pairs in two languages

_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
_MULTI30K_FILES = [
    File(name, sha256, (_MULTI30K + name,))
    for name, sha256 in {
        "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
        "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
        "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
        "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
        "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
        "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    }.items()
]
_TATOEBA = File("spa-eng.zip", "f80e581ae291aa34dd3aba7bd98b5e9505234da4318e2f3295df70a1520c7f61")
_TATOEBA_ADDRESS = "http://storage.googleapis.com/download.tensorflow.org/data/spa-eng.zip"
HELD_OUT = 1000  # English sentences of Tatoeba in each of validation and test


def multi30k() -> Parallel:
    """Multi30k, task 1: captions of photographs in English, translated into German by people; the official split.

    Its terms allow research and education, not commerce.
    """
    paths = fetch("multi30k", _MULTI30K_FILES)
    parts = []
    for english, german in zip(paths[::2], paths[1::2]):
        sides = [_lines(path, _unzipped(path)) for path in (english, german)]
        if len(sides[0]) != len(sides[1]):
            raise damaged(german, f"it has {len(sides[1])} lines", f"the {len(sides[0])} of {english.name}")
        parts.append([(source.strip(), target.strip()) for source, target in zip(*sides)])
    return Parallel(*parts, ("English", "German"))


def tatoeba() -> Parallel:
    """Short everyday sentences of tatoeba.org in English and Spanish, from manythings.org/anki.

    A sentence may have several translations. Those of one English sentence stay together, so that nothing that is
    tested was learned from; validation and test keep the first. Each of them has ``HELD_OUT`` sentences, at most a
    tenth.
    """
    path = locate("tatoeba-spa-eng", _TATOEBA)
    if path is None:  # its publisher states no checksum, so that a download could not be checked
        raise DatasetError(
            f"the data set tatoeba-spa-eng is not on this machine; download\n  {_TATOEBA_ADDRESS}\nby hand, and put it "
            "into the folder tatoeba-spa-eng of the folder that the environment variable FNN_DATA names"
        )
    groups: dict[str, list[Pair]] = {}
    for number, line in enumerate(_lines(path, read_zipped(path, "spa-eng/spa.txt")), 1):
        pair = tuple(side.strip() for side in line.split("\t"))
        if len(pair) != 2 or not all(pair):
            raise damaged(path, f"line {number} is {line[:40]!r}", "a sentence, a tab, and its translation")
        groups.setdefault(pair[0], []).append(pair)
    if len(groups) < 10:
        raise damaged(path, f"it has {len(groups)} English sentences", "at least 10")
    ordered = list(groups.values())
    shuffled = [ordered[place] for place in np.random.default_rng(0).permutation(len(ordered))]
    size = min(HELD_OUT, len(groups) // 10)
    first = lambda part: [group[0] for group in part]
    train = [pair for group in shuffled[2 * size :] for pair in group]
    return Parallel(train, first(shuffled[:size]), first(shuffled[size : 2 * size]), ("English", "Spanish"))


LABELLED = {"sms": sms, "banking77": banking77}
PARALLEL = {"multi30k": multi30k, "tatoeba": tatoeba}


# Reading files


def read_zipped(path: Path, name: str) -> bytes:
    """Read one file of a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except KeyError:
        raise damaged(path, f"it has no {name}", f"an archive of {name}") from None
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"it cannot be unpacked ({error})", "a whole zip archive") from error


def _unzipped(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, f"it cannot be unpacked ({error})", "a whole gzip file") from error


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it cannot be read ({error})", "text in UTF-8") from error


def _lines(path: Path, content: bytes) -> list[str]:
    """Lines, none of them empty. Only a line feed ends one: sentences may hold other breaks."""
    lines = _text(path, content).removesuffix("\n").split("\n")
    if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
        raise damaged(path, f"line {empty[0]} is empty", "a sentence in every line")
    return lines


# Texts as numbers


class Tokens:
    """Pieces of words as ids: the byte pairs that are most frequent in some texts, so that no word is unknown.

    Frequent words are one piece, rare ones several, down to single bytes. Ids 0, 1 and 2 stand for padding, the
    beginning and the end.
    """

    def __init__(self, texts: Iterable[str], size: int, *, lowercase: bool = False):
        """Learn at most ``size`` pieces from texts; small letters and capitals are the same where ``lowercase``."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        own: Any = Tokenizer(models.BPE())
        if lowercase:
            own.normalizer = normalizers.Lowercase()
        own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        own.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=["[pad]", "[begin]", "[end]"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        own.train_from_iterator(texts, trainer)
        own.encode_special_tokens = True  # a text that spells a mark is a text: encoding makes no marks of it
        self._own = own

    def __len__(self) -> int:
        return self._own.get_vocab_size()

    def encode(self, texts: Sequence[str], *, ends: bool = False) -> list[list[int]]:
        """The ids of each text; with ``ends`` between `BEGIN` and `END`."""
        found = [encoding.ids for encoding in self._own.encode_batch(list(texts), add_special_tokens=False)]
        return [[BEGIN, *ids, END] for ids in found] if ends else found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without those of padding, beginning and end."""
        return self._own.decode([int(number) for number in ids], skip_special_tokens=True).strip()

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each id by itself; parts of a letter are shown as a replacement character."""
        names = {PAD: "[pad]", BEGIN: "[begin]", END: "[end]"}
        return [names.get(int(number)) or self._own.decode([int(number)]).strip() for number in ids]


def padded(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Put rows of ids into one array.

    Args:
        rows: Ids, at least one in each row.
        length: Of the array; longer rows are cut. None: that of the longest.

    Returns:
        ``(rows, length)`` ids filled up with `PAD`, and how many ids of each row are real, ``(rows,)``; int32.
    """
    length = length or max(map(len, rows))
    cut = [row[:length] for row in rows]
    ids = np.full((len(rows), length), PAD, np.int32)
    for place, row in enumerate(cut):
        ids[place, : len(row)] = row
    return ids, np.array([len(row) for row in cut], np.int32)
