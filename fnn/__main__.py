"""Files of checkpoints, looked at from the command line: ``python -m fnn info FILE``."""

import argparse
import sys
from pathlib import Path

import numpy as np

from fnn.checkpoint.archive import Archive, opened, verify
from fnn.checkpoint.container import read_array
from fnn.checkpoint.disk import show_bytes
from fnn.checkpoint.errors import CheckpointError
from fnn.checkpoint.table import plain, show_table

DAMAGED, DIFFERENT = 2, 1


def info(file: Path) -> int:
    """Show what a file holds, without reading its arrays."""
    with opened(file) as archive:
        rows, total, numbers = [], 0, 0
        for name in archive.stored:
            spec, stored = archive.spec(name), archive.stored[name]
            entry = archive.header.entries.get(name)
            size = 0 if entry is None else entry.end - entry.begin
            shape = repr(stored.value) if spec.shape is None else str(list(spec.shape))
            rows.append((name, spec.dtype, shape, show_bytes(size)))
            total, numbers = total + size, numbers + (0 if entry is None else size // entry.dtype.itemsize)
        by = "another tool, without checksums" if archive.version is None else f"fnn {plain(archive.version)}"
        print(f"{file}: {len(rows)} leaves, {numbers:,} numbers, {show_bytes(total)}, written by {by}")
        print(show_table(("path", "dtype", "shape", "bytes"), rows))
        if archive.note is not None:
            print(f"  note: {plain(str(archive.note))}")
    return 0


def check(path: Path) -> int:
    """Compare a file, or each in a folder, with its checksums."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        print(f"{path}: no .safetensors file in it", file=sys.stderr)
        return DAMAGED
    status = 0
    for file in files:
        try:
            print(f"{file}: {'whole' if verify(file) else 'well formed; it has no checksums'}")
        except (CheckpointError, OSError) as error:
            print(f"DAMAGED {error}")
            status = DAMAGED
    return status


def diff(a: Path, b: Path) -> int:
    """Show the leaves in which two files differ."""
    with opened(a) as one, opened(b) as other:
        rows = []
        for name in {**one.stored, **other.stored}:
            texts = [_show(archive, name) for archive in (one, other)]
            if texts[0] != texts[1]:
                rows.append((name, *texts, ""))
            elif apart := _apart(one, other, name):
                rows.append((name, *texts, apart))
    if not rows:
        print(f"the same {len(one.stored)} leaves")
        return 0
    print(show_table(("path", str(a), str(b), "values"), rows))
    return DIFFERENT


def _show(archive: Archive, name: str) -> str:
    if name not in archive.stored:
        return "-"
    value = archive.stored[name].value
    return str(archive.spec(name)) if value is None else f"{archive.spec(name)} {value!r}"


def _apart(one: Archive, other: Archive, name: str) -> str:
    """By how much two arrays of one shape differ; empty where they do not."""
    if one.stored[name].value is not None or one.sums().get(name, "a") == other.sums().get(name, "b"):
        return ""
    x, y = (read_array(side.file, side.name, side.header, name, side.sums().get(name)) for side in (one, other))
    if x.tobytes() == y.tobytes():
        return ""
    if np.issubdtype(x.dtype, np.bool_):
        return f"{int((x != y).sum())} of {x.size} differ"
    return f"differ by up to {float(np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))):.3g}"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 where files differ, 2 where one is damaged or missing."""
    parser = argparse.ArgumentParser(prog="python -m fnn", description="Look at files of checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text, operands in (
        ("info", "what a file holds", ["file"]),
        ("verify", "compare a file, or all in a folder, with their checksums", ["file"]),
        ("diff", "the leaves in which two files differ; exit status 1 where there are any", ["a", "b"]),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for operand in operands:
            command.add_argument(operand, type=Path, help="a .safetensors file" + (" or a folder" * (name == "verify")))
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "diff":
            return diff(parsed.a, parsed.b)
        return info(parsed.file) if parsed.command == "info" else check(parsed.file)
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return DAMAGED


if __name__ == "__main__":
    sys.exit(main())
