"""The reader of files under a fuzzer: ``python -m tests.faults.fuzz [--seconds N] [--corpus FOLDER] [FILE ...]``.

Atheris (``pip install atheris``) changes files, and keeps those that take a new way through ``fnn.checkpoint``. Each
is read as it is, and once more with the length and the checksum of its header made right: nothing behind these would be
reached otherwise. It must be whole or raise `CheckpointError`, take no longer than 10 seconds, and give no more than
its own bytes. What breaks that ends the program, and stays in the corpus as ``crash-...``; given as FILE it is read
again.
"""

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

LONGEST = 6000  # bytes of a file
VALUES = [
    None, True, -1, 0, 1, 2, 2**31, 2**62, 2**63, 1.5, 1e308, "", "a", "a/b", "\ud800", "\x1b[2J", [], {}, [0, 0],
    [2**40], "F32", "BF16", "F64", "U32", "U8", "dict", "list", "tuple", "None", {"array": "a"}, {"int": 3},
    {"int": "7"}, {"float": "0x1p3"}, {"float": "0x1p9999"}, {"bool": 1}, {"array": "a", "key": "threefry2x32"},
    {"array": "a", "key": "rbg"}, {"array": "a", "dtype": "int4"}, {"array": "a", "dtype": "complex128"},
]  # fmt: skip
NAMES = ["a", "", "x/y", "\ud800", "\x1b[2J", "fnn", "crc32s", "sha256", "__metadata__"]


def seeds() -> list[bytes]:
    """The files of the tests: whole ones, and those made to harm."""
    import fnn
    from tests.checkpoint.test_container import ABOUT, HOSTILE, TREE, TREES, entry, raw, signed

    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "whole"
        fnn.save(file, [TREE, (None, {"more": 1.5, "bool": True})], note={"accuracy": [0.5, None]})
        whole = file.read_bytes()
    foreign = raw({"a": entry(), "b/c": entry("BF16", (2, 1), (4, 8)), "__metadata__": {"format": "pt"}}, bytes(8))
    kinds = [("int4", "I8", [3], 3), ("complex128", "F64", [1, 2], 16), ("float8_e4m3", "U8", [], 1)]
    kept = [
        signed(
            ABOUT | {"tree": {"array": "a", "dtype": dtype}}, bytes(size), {"(the tree)": entry(code, shape, [0, size])}
        )
        for dtype, code, shape, size in kinds
    ]
    trees = [signed(about) for about in TREES.values()]
    return [file for file in [whole, foreign, *kept, *trees, *HOSTILE.values()] if len(file) <= LONGEST]


def header_of(content: bytes) -> tuple[bytes, bytes]:
    """The header of a file, and what comes behind it."""
    length = min(int.from_bytes(content[:8], "little"), len(content[8:]))
    return content[8 : 8 + length], content[8 + length :]


def mended(content: bytes) -> bytes:
    """The file with the length and the checksum of its header made right."""
    text, data = header_of(content)
    text = re.sub(rb'"sha256": ?"[^"]*"', b'"sha256":"' + b"0" * 64 + b'"', text, count=1)
    header = len(text).to_bytes(8, "little") + text
    return header.replace(b"0" * 64, sha256(header).hexdigest().encode(), 1) + data


def altered(content: bytes, chance: random.Random) -> bytes:
    """The file with one place in its header, or in the structure that this holds, changed."""
    text, data = header_of(content)
    try:
        header = json.loads(text)
        about = header.get("__metadata__", {})
        if "fnn" in about and chance.random() < 0.7:
            about["fnn"] = json.dumps(alter(json.loads(about["fnn"]), chance))
        else:
            header = alter(header, chance)
        text = json.dumps(header, separators=(",", ":")).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return content
    return mended(len(text).to_bytes(8, "little") + text + data)


def alter(value: Any, chance: random.Random) -> Any:
    """A value of JSON with one place taken away, doubled, or another."""
    if not isinstance(value, list | dict) or not value or chance.random() < 0.15:
        return chance.choice(VALUES)
    place, way = chance.choice(list(value) if isinstance(value, dict) else range(len(value))), chance.random()
    if way < 0.1:
        value.pop(place)
    elif way < 0.25 and isinstance(value, dict):
        value[chance.choice(NAMES)] = value[place]
    elif way < 0.25 and isinstance(value, list):
        value.insert(chance.randrange(len(value) + 1), value[place])
    else:
        value[place] = alter(value[place], chance)
    return value


def read(file: Path) -> bool:
    """Read a file in every way; whether it is whole.

    Raises:
        AssertionError: where the ways differ, or it gives more than it has.
    """
    import jax

    import fnn
    from fnn.__main__ import check, diff, info
    from tests.checkpoint.test_container import TREE

    loaded = succeeds(fnn.load, file)
    shown = io.BytesIO()
    with io.TextIOWrapper(shown, "utf-8") as out, contextlib.redirect_stdout(out):
        told, whole = succeeds(info, file), check(file) == 0
        assert not loaded or (told and whole and diff(file, file) == 0), "it is loaded, and damaged for the commands"
        out.flush()
        assert b"\x1b" not in shown.getvalue(), "it commands the terminal"
    if told:
        succeeds(lambda file: fnn.load(file, TREE), file)
    if loaded:
        size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(fnn.load(file)))
        assert size <= file.stat().st_size, f"{size} bytes come from a file of {file.stat().st_size}"
    return loaded


def succeeds(way: Callable[[Path], Any], file: Path) -> bool:
    """Whether it does; otherwise the error must be fnn's own."""
    from fnn.checkpoint.errors import CheckpointError

    try:
        way(file)
    except CheckpointError:
        return False
    return True


def fuzz(seconds: int, corpus: Path, files: list[Path]) -> None:
    """Run for some seconds, or read files again; ends the program."""
    atheris = import_module("atheris")  # an extra of this program alone
    with atheris.instrument_imports(include=["fnn.checkpoint", "fnn.__main__"]):
        import_module("fnn.__main__")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(content)
    file = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)) / "file.safetensors"

    def test(content: bytes) -> None:
        for each in {content, mended(content)}:
            file.write_bytes(each)
            read(file)

    def change(content: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        changed = altered(content, chance) if chance.random() < 0.5 else atheris.Mutate(content, len(content))
        return changed[:longest]

    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-timeout=10",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
    ]
    what = list(map(str, files)) or [str(corpus)]
    atheris.Setup([sys.argv[0], *flags, *what], test, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description="The reader under a fuzzer.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="files to read again")
    parser.add_argument("--seconds", type=int, default=600, help="by default %(default)s")
    parser.add_argument("--corpus", type=Path, default=Path("outputs/fuzz"), help="by default %(default)s")
    options = parser.parse_args()
    fuzz(options.seconds, options.corpus, options.files)
