"""Every byte of a file is checked; files made to harm raise one error, take little memory and end."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import fnn

TREE = {"kernel": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(0), "empty": jnp.zeros((0, 2)), "step": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("whole") / "a"
    fnn.save(file, TREE, note="a note")
    return file.read_bytes()


def read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    fnn.load(file, TREE)


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_a_flipped_bit_anywhere_is_found(whole: bytes, tmp_path: Path) -> None:
    read(tmp_path / "a", whole)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        with pytest.raises(fnn.CheckpointError, match=r"damaged|checksum|cannot be read|newer"):
            read(tmp_path / "a", bytes(changed))


def test_a_file_that_ends_early_or_late_is_found(whole: bytes, tmp_path: Path) -> None:
    for length in range(len(whole)):
        with pytest.raises(fnn.CheckpointError):
            read(tmp_path / "a", whole[:length])
    with pytest.raises(fnn.CheckpointError, match="the arrays end at byte"):
        read(tmp_path / "a", whole + b"\0")


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE = {
    "empty": b"",
    "a header larger than the file": (2**63).to_bytes(8, "little") + b"{}",
    "a header of 99 MB that is not there": (99_000_000).to_bytes(8, "little") + b"{}",
    "no JSON": raw(b"{"),
    "nested deeply": raw(b'{"a":' * 100_000),
    "nested lists": raw(b"[" * 100_000 + b"]" * 100_000),
    "bad UTF-8": raw(b'{"\xff":1}'),
    "a list": raw([]),
    "NaN": raw(b'{"a":NaN}'),
    "a number of a million digits": raw(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "a name twice": raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', bytes(4)),
    "no entry": raw({"a": 3}, bytes(4)),
    "an entry with more": raw({"a": entry() | {"code": "import os"}}, bytes(4)),
    "an unknown dtype": raw({"a": entry("object")}, bytes(4)),
    "a dtype that is a list": raw({"a": entry([])}, bytes(4)),
    "an absurd shape": raw({"a": entry(shape=[2**62, 2**62])}, bytes(4)),
    "an absurd shape of nothing": raw({"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}),
    "many axes": raw({"a": entry(shape=[1] * 1000)}, bytes(4)),
    "a negative shape": raw({"a": entry(shape=[-1])}, bytes(4)),
    "a float in the shape": raw({"a": entry(shape=[1.0])}, bytes(4)),
    "a bool in the shape": raw({"a": entry(shape=[True])}, bytes(4)),
    "offsets beyond the end": raw({"a": entry(offsets=[4, 8])}, bytes(4)),
    "offsets backwards": raw({"a": entry(offsets=[4, 0])}, bytes(4)),
    "three offsets": raw({"a": entry(offsets=[0, 4, 8])}, bytes(4)),
    "arrays that overlap": raw({"a": entry(), "b": entry()}, bytes(4)),
    "a gap": raw({"a": entry(), "b": entry(offsets=[8, 12])}, bytes(12)),
    "metadata that is no text": raw({"__metadata__": {"a": 1}}),
    "metadata that is a list": raw({"__metadata__": []}),
    "a structure that is no JSON": raw({"__metadata__": {"fnn": "{", "sha256": "0" * 64}}),
    "a structure without a checksum": raw({"__metadata__": {"fnn": "{}"}}),
    "a checksum that is no text for a file": raw({"__metadata__": {"fnn": "{}", "sha256": "\ud800"}}),
    "an empty checksum": raw({"__metadata__": {"fnn": "{}", "sha256": ""}}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_raise_one_error_and_take_little_memory(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(fnn.CheckpointError):
            fnn.load(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 40 * len(content) + 1_000_000
    finally:
        tracemalloc.stop()


DEEP = '["list",[["0",' * 5000 + "null" + "]]]" * 5000


def signed(about: Any, data: bytes = b"", entries: Any = None) -> bytes:
    """A file whose header has a right checksum, whatever it says."""
    from hashlib import sha256

    structure = json.dumps(about).replace('"DEEP"', DEEP)
    header = {"__metadata__": {"sha256": "0" * 64, "fnn": structure}, **(entries or {})}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text
    return content.replace(b"0" * 64, sha256(content).hexdigest().encode(), 1) + data


ABOUT = {"format": 1, "fnn": "1", "note": None}
TREES = {
    "of a newer format": {"format": 99, "fnn": "9"},
    "without a tree": ABOUT,
    "that names no array": ABOUT | {"tree": {"array": "a"}},
    "of an unknown leaf": ABOUT | {"tree": {"code": "import os"}},
    "of an unknown key": ABOUT | {"tree": {"array": "a", "key": "evil"}},
    "with a wrong number": ABOUT | {"tree": {"float": "zz"}},
    "with a list for a name": ABOUT | {"tree": [["x"], []]},
    "without fields": ABOUT | {"tree": ["dict"]},
    "of text": ABOUT | {"tree": "dict"},
    "of parts without names": ABOUT | {"tree": ["dict", [[["x"], {"int": 1}]]]},
    "nested deeply": ABOUT | {"tree": "DEEP"},
    "of names that cannot be sorted": ABOUT | {"tree": ["dict", [["a", {"int": 1}], [3, {"int": 1}]]]},
    "of a name twice": ABOUT | {"tree": ["dict", [["a", {"int": 1}], ["a", {"int": 2}]]]},
}


@pytest.mark.parametrize("about", TREES.values(), ids=TREES)
def test_structures_made_to_harm_raise_one_error(about: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(signed(about))
    with pytest.raises(fnn.CheckpointError):
        fnn.load(tmp_path / "a")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_that_were_tampered_with_are_whole_or_raise_one_error(
    data: st.DataObject, whole: bytes, tmp_path: Path
) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        size = data.draw(st.integers(0, 12))
        content[place : place + size] = data.draw(st.binary(max_size=12))
    if bytes(content) == whole:
        return
    with pytest.raises(fnn.CheckpointError):
        read(tmp_path / "a", bytes(content))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "dtype", "shape"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["__metadata__", "dtype", "shape", "data_offsets", "a"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ),
    data=st.binary(max_size=8),
)
def test_headers_of_any_kind_are_read_or_raise_one_error(header: Any, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(raw(header, data))
    try:
        fnn.load(tmp_path / "a")
    except fnn.CheckpointError:
        return
    assert isinstance(header, dict)


def test_no_module_reads_pickles() -> None:
    for file in Path(fnn.__file__).parent.rglob("*.py"):
        text = file.read_text()
        for word in ("import pickle", "cloudpickle", "marshal", "eval(", "exec(", "allow_pickle"):
            assert word not in text.replace("literal_eval(", ""), f"{file} has {word}"


@pytest.mark.parametrize(("dtype", "stored", "shape"), [("complex128", "F64", [3]), ("float8_e4m3", "F32", [])])
def test_a_dtype_that_does_not_fit_what_is_stored_is_found(
    dtype: str, stored: str, shape: list[int], tmp_path: Path
) -> None:
    size = {"F64": 24, "F32": 4}[stored]
    about = ABOUT | {"tree": {"array": "a", "dtype": dtype}}
    (tmp_path / "a").write_bytes(signed(about, bytes(size), {"a": entry(stored, shape, [0, size])}))
    with pytest.raises(fnn.CheckpointError):
        fnn.load(tmp_path / "a")
