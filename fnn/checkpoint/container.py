"""The safetensors format: a header in JSON with a SHA-256 of its own, and arrays behind it, each with a CRC-32.

The checksums and what else fnn knows lie in the header's metadata, which other readers pass over:
https://huggingface.co/docs/safetensors. Nothing in a file is believed before it is checked against the file's size.
"""

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from fnn.checkpoint.errors import CheckpointError

DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}

LARGEST_HEADER = 100_000_000  # bytes, as in the reference implementation
CHUNK = 2**22  # bytes that are read and summed at a time
METADATA = "__metadata__"
NO_SUM = "0" * 8
UNKNOWN = "0" * 64  # in place of the header's own checksum while it is made


class Entry(NamedTuple):
    """Where an array lies, in bytes after the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """What a file holds.

    Attributes:
        entries: By name, where each array lies.
        metadata: Strings by name.
        start: Where the arrays begin, in bytes from the start of the file.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


class Blob(NamedTuple):
    """An array to be written; ``read()`` gives it in C order, when its turn has come."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def write_container(file: BinaryIO, blobs: Mapping[str, Blob], metadata: Mapping[str, str]) -> None:
    """Write a file from its start; the header is completed with the checksums at last."""
    file.write(_pack(blobs, metadata, dict.fromkeys(blobs, NO_SUM)))
    sums: dict[str, Future[str]] = {}
    flushed = None
    with ThreadPoolExecutor(1) as summing, ThreadPoolExecutor(1) as flushing:
        for name, blob in blobs.items():
            flat = _flat(blob.read())
            wait(sums.values())  # so no more than one array is held for its sum
            sums[name] = summing.submit(_sum, flat)
            file.write(flat)
            if flushed is None or flushed.done():  # the disk is kept busy meanwhile
                if flushed is not None:
                    flushed.result()
                flushed = flushing.submit(_flush, file)
    if flushed is not None:
        flushed.result()
    file.seek(0)
    file.write(_pack(blobs, metadata, {name: found.result() for name, found in sums.items()}))


def _flush(file: BinaryIO) -> None:
    os.fsync(file.fileno())


def container_size(blobs: Mapping[str, Blob], metadata: Mapping[str, str]) -> int:
    """How many bytes `write_container` writes."""
    header = _pack(blobs, metadata, dict.fromkeys(blobs, NO_SUM))
    return len(header) + sum(_bytes_of(blob.dtype, blob.shape) for blob in blobs.values())


def _pack(blobs: Mapping[str, Blob], metadata: Mapping[str, str], sums: Mapping[str, str]) -> bytes:
    """The header; its length does not depend on the sums."""
    at, entries = 0, {}
    for name, blob in blobs.items():
        end = at + _bytes_of(blob.dtype, blob.shape)
        entries[name] = {"dtype": CODES[blob.dtype], "shape": list(blob.shape), "data_offsets": [at, end]}
        at = end
    # The sum of the header is that of its bytes with zeros in the sum's own place.
    about = {"sha256": UNKNOWN, **metadata, "crc32s": " ".join(sums.values())}
    text = json.dumps({METADATA: about, **entries}, separators=(",", ":"), ensure_ascii=False)
    raw = text.encode()
    if len(raw) > LARGEST_HEADER - 64:
        raise ValueError(f"the header would take {len(raw)} bytes, and {LARGEST_HEADER} is the most; shorten the note")
    raw += b" " * (-len(raw) % 64)  # arrays begin where memory that is mapped is aligned
    raw = (len(raw) + 56).to_bytes(8, "little") + raw + b" " * 56
    return raw.replace(UNKNOWN.encode(), _digest(raw).encode(), 1)


def _bytes_of(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _digest(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()


def _sum(flat: memoryview) -> str:
    return f"{zlib.crc32(flat):08x}"


def _flat(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order; without a copy, if it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _chunks(flat: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK]


def read_header(file: BinaryIO, name: str | Path) -> Header:
    """Read and check everything but the arrays."""
    size = file.seek(0, 2)
    file.seek(0)
    fail = lambda reason: CheckpointError(name, f"{reason}; the file is damaged, or no safetensors file")
    if size < 8:
        raise fail(f"it has {size} bytes and needs at least 8")
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if length > min(LARGEST_HEADER, size - 8):
        raise fail(f"its header should have {length} bytes, and the file has {size}")
    raw = file.read(length)
    if len(raw) < length:
        raise fail("it became shorter while it was read")
    try:
        content = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise fail(f"its header cannot be read: {_short(error)}") from None
    try:
        header = _check_header(content, length + 8, size)
    except (ValueError, TypeError, AttributeError) as error:
        raise fail(f"its header is wrong: {_short(error)}") from None
    if len(header.metadata.get("crc32s", "").split()) not in (0, len(header.entries)):
        raise fail("it has not as many checksums as arrays")
    wanted = header.metadata.get("sha256")
    if wanted is None and {"fnn", "crc32s"} & set(header.metadata):
        raise fail("its header has no checksum")
    if wanted is not None:
        if not re.fullmatch("[0-9a-f]{64}", wanted):
            raise fail("the checksum of its header is none")
        bare = (first + raw).replace(wanted.encode(), UNKNOWN.encode(), 1)
        if _digest(bare) != wanted:
            raise fail("the checksum of its header is wrong")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _short(error: BaseException) -> str:
    text = str(error) if not isinstance(error, RecursionError) else "it is nested too deeply"
    return text if len(text) < 200 else f"{text[:200]} ..."


def _check_header(content: Any, start: int, size: int) -> Header:
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    metadata = content.pop(METADATA, {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise ValueError("its metadata is no object of strings")
    entries = {name: _check_entry(name, entry) for name, entry in content.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise ValueError(f"array {name!r} begins at byte {entry.begin}, wanted {at}: arrays overlap or have gaps")
        at = entry.end
    if start + at != size:
        raise ValueError(f"the arrays end at byte {start + at}, and the file has {size}")
    return Header(entries, metadata, start)


def _check_entry(name: str, entry: Any) -> Entry:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {name!r} needs dtype, shape and data_offsets, and nothing else")
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"array {name!r} has the dtype {entry['dtype']!r}; there is {', '.join(DTYPES)}")
    dtype, shape, offsets = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    for numbers, most in ((shape, 64), (offsets, 2)):
        if not isinstance(numbers, list) or len(numbers) > most:
            raise ValueError(f"array {name!r} has a wrong shape or wrong offsets")
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError(f"array {name!r} has a shape or offsets that are no sizes")
    if len(offsets) != 2 or offsets[1] - offsets[0] != _bytes_of(dtype, tuple(shape)):
        raise ValueError(f"array {name!r} has a shape that does not fit its bytes")
    return Entry(dtype, tuple(shape), *offsets)


def read_array(file: BinaryIO, name: str | Path, header: Header, key: str, wanted: str | None) -> np.ndarray:
    """Read an array, and check it against its checksum, where there is one."""
    entry = header.entries[key]
    try:
        array = _aligned(entry)
    except (ValueError, MemoryError) as error:
        raise CheckpointError(name, f"array {key!r} of shape {entry.shape} cannot be made: {error}") from None
    flat, found = _flat(array), 0
    file.seek(header.start + entry.begin)
    for chunk in _chunks(flat):
        if file.readinto(chunk) != len(chunk):  # type: ignore[attr-defined]
            raise CheckpointError(name, f"array {key!r} became shorter while it was read")
        found = zlib.crc32(chunk, found)
    if wanted is not None and f"{found:08x}" != wanted:
        raise CheckpointError(
            name, f"the checksum of array {key!r} is wrong: its bytes were changed after they were written"
        )
    return array


def _aligned(entry: Entry) -> np.ndarray:
    """An empty array that begins at a multiple of 64 bytes, so that JAX can take it on a CPU without a copy."""
    size = _bytes_of(entry.dtype, entry.shape)
    buffer = np.empty(size + 64, np.uint8)
    first = -buffer.ctypes.data % 64
    return buffer[first : first + size].view(entry.dtype).reshape(entry.shape)


def checksums(header: Header) -> dict[str, str]:
    """The checksum of every array, where the file has them."""
    sums = header.metadata.get("crc32s")
    return {} if sums is None else dict(zip(header.entries, sums.split(" ")))
