"""Faults: each is done to the checkpoints of a library, many times, and yields what became of them.

A process that is killed is no computer that loses its power: what it wrote, the system still has. A full disk is a
limit on the sizes of files, which every system has, and a small file system, which only root may mount.
"""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.faults.keepers import KEEPERS, leaves_of, tree_of
from tests.faults.trial import CONTEXT, PATIENCE, Outcome, Process, ask, go_on, judge, restore, save

PLACES = 32  # bytes that are flipped, one at a time
NOBODY = 65534  # a user without rights


class Trial(NamedTuple):
    """An outcome, and of what exactly."""

    outcome: Outcome
    what: str


class Setting(NamedTuple):
    """The library by name, how many moments of death, and where chance comes from."""

    keeper: str
    moments: int
    rng: np.random.Generator


Fault = Callable[[Setting], Iterator[Trial]]
Span = tuple[Path, int, int]  # a file, and the bytes from begin to end


@contextlib.contextmanager
def saved(keeper: str, *steps: int) -> Iterator[Path]:
    """A folder with checkpoints of some steps, in a temporary one of its own."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "run"
        folder.mkdir()
        if steps:
            must_save(keeper, folder, *steps)
        yield folder


def must_save(keeper: str, folder: Path, *steps: int) -> None:
    """Save without a fault."""
    reply = ask(save, keeper, folder, *steps)
    if reply != steps[-1]:
        raise RuntimeError(f"{keeper} cannot save without any fault: {reply!r}")


def killed(setting: Setting) -> Iterator[Trial]:
    """Kill -9 during a save, at random moments."""
    for _ in range(setting.moments):
        with saved(setting.keeper) as folder:
            newest, moment = save_until_killed(setting, folder)
            yield Trial(go_on(setting.keeper, folder, newest), f"{1000 * moment:.1f} ms after step 2 of {newest}")


def save_until_killed(setting: Setting, folder: Path) -> tuple[int, float]:
    """The last step that was said to be saved, and the seconds that its process lived after the second."""
    with Process(save_forever, setting.keeper, folder) as process:
        first, begin, second = process.next(), time.perf_counter(), process.next()
        if (first, second) != (1, 2):
            raise RuntimeError(f"{setting.keeper} cannot save without any fault: {first!r}, {second!r}")
        moment = setting.rng.uniform(0, 4) * (time.perf_counter() - begin)
        time.sleep(moment)
        process.kill()
        newest = second
        while isinstance(step := process.next(), int):
            newest = step
        return newest, moment


def save_forever(keeper: str, folder: Path) -> Iterator[int]:
    """Save step after step."""
    kept = KEEPERS[keeper](folder)
    for step in count(1):
        kept.save(step, tree_of(step))
        yield step


def flipped_arrays(setting: Setting) -> Iterator[Trial]:
    """A byte of the arrays is changed."""
    with two_saved(setting.keeper) as (folder, files):
        yield from flip(setting, folder, array_spans(files))


def flipped_rest(setting: Setting) -> Iterator[Trial]:
    """A byte of all the rest is changed: headers, names, shapes, checksums."""
    with two_saved(setting.keeper) as (folder, files):
        yield from flip(setting, folder, rest_of(files, array_spans(files)))


@contextlib.contextmanager
def two_saved(keeper: str) -> Iterator[tuple[Path, list[Path]]]:
    """A folder with steps 1 and 2, and the files that came with step 2."""
    with saved(keeper, 1) as folder:
        before = set(folder.rglob("*"))
        must_save(keeper, folder, 2)
        yield folder, sorted(file for file in folder.rglob("*") if file not in before and file.is_file())


def array_spans(files: list[Path]) -> list[Span]:
    """Where the arrays lie: where their bytes are found, and all of the large files, where some are compressed."""
    contents = {file: file.read_bytes() for file in files}
    spans, lost = [], False
    for leaf in leaves_of(tree_of(2)):
        starts = [(file, content.find(leaf.tobytes())) for file, content in contents.items()]
        found = [(file, start, start + leaf.nbytes) for file, start in starts if start >= 0]
        spans, lost = spans + found, lost or not found
    if not lost:
        return spans
    large = [file for file in files if size_of(file) > max(map(size_of, files)) / 10]
    return [*(span for span in spans if span[0] not in large), *((file, 0, size_of(file)) for file in large)]


def rest_of(files: list[Path], spans: list[Span]) -> list[Span]:
    """The bytes of the files that are in none of the spans."""
    rest = []
    for file in files:
        at = 0
        for _, begin, end in sorted(span for span in spans if span[0] == file):
            rest.append((file, at, begin))
            at = end
        rest.append((file, at, size_of(file)))
    return rest


def size_of(file: Path) -> int:
    return file.stat().st_size


def flip(setting: Setting, folder: Path, spans: list[Span]) -> Iterator[Trial]:
    """Change one byte, spread evenly over the spans."""
    ends = np.cumsum([end - begin for _, begin, end in spans])
    for part in range(PLACES):
        at = int((part + setting.rng.uniform()) / PLACES * ends[-1])
        which = int(np.searchsorted(ends, at, side="right"))
        file, _, end = spans[which]
        place, mask = end - int(ends[which] - at), int(setting.rng.integers(1, 256))
        content = bytearray(file.read_bytes())
        content[place] ^= mask
        yield damage(setting.keeper, folder, file, bytes(content), f"byte {place} ^ {mask}")


def damage(keeper: str, folder: Path, file: Path, content: bytes, what: str) -> Trial:
    """Judge a copy of the folder in which a file has another content."""
    name = file.relative_to(folder)
    with tempfile.TemporaryDirectory() as home:
        copy = Path(home) / "run"
        shutil.copytree(folder, copy)
        (copy / name).write_bytes(content)
        return Trial(judge(keeper, copy, 2, whole=1), f"{name}: {what}")


def truncated(setting: Setting) -> Iterator[Trial]:
    """A file of the checkpoint is cut short."""
    with two_saved(setting.keeper) as (folder, files):
        for file in files:
            content = file.read_bytes()
            size = len(content)
            for length in sorted({0, 1, 8, size // 4, size // 2, 3 * size // 4, size - 1} & set(range(size))):
                yield damage(setting.keeper, folder, file, content[:length], f"{length} of {size} bytes")


def full(setting: Setting) -> Iterator[Trial]:
    """No file can become larger than a limit, until the run is started again."""
    for share in (0, 0.01, 0.1, 0.5, 0.9, 0.999):
        with two_saved(setting.keeper) as (folder, files):
            limit = int(share * max(map(size_of, files)))
            reply = ask(save_limited, setting.keeper, folder, limit)
            yield after_full(setting, folder, reply, f"limit of {limit} bytes")


def after_full(setting: Setting, folder: Path, reply: Any, what: str) -> Trial:
    """Judge what is there after step 3 had too little room."""
    if isinstance(reply, Outcome):
        return Trial(reply, what)
    newest = 2 if isinstance(reply, Exception) else 3
    return Trial(go_on(setting.keeper, folder, newest), f"{what}, save: {reply}")


def save_limited(keeper: str, folder: Path, limit: int) -> Iterator[int]:
    """Save step 3 with a limit on the sizes of files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return save(keeper, folder, 3)


def full_system(setting: Setting) -> Iterator[Trial]:
    """The file system has no more room than a share of a checkpoint, until the run is started again."""
    for share in (0, 0.1, 0.5, 0.9, 0.999):
        with small_system() as home:
            if home is None:
                return
            folder, ballast = home / "run", home / "ballast"
            folder.mkdir()
            must_save(setting.keeper, folder, 1)
            before = shutil.disk_usage(home).free
            must_save(setting.keeper, folder, 2)
            free = shutil.disk_usage(home).free
            room = int(share * (before - free))
            ballast.write_bytes(bytes(free - room))
            reply = ask(save, setting.keeper, folder, 3)
            ballast.unlink()
            yield after_full(setting, folder, reply, f"{room} bytes left")


@contextlib.contextmanager
def small_system() -> Iterator[Path | None]:
    """A file system of 8 MB in memory; None where it may not be mounted."""
    with tempfile.TemporaryDirectory() as home:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", home]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            yield Path(home)
        finally:
            subprocess.run(["umount", "--lazy", home], check=True)


def read_only(setting: Setting) -> Iterator[Trial]:
    """The folder, and all in it, may be read and not written."""
    with saved(setting.keeper, 1, 2) as folder:
        spare = folder.parent / "spare"
        spare.mkdir()
        folder.parent.chmod(0o755)
        set_modes(folder, 0o555, 0o444)
        try:
            reply = ask(save_without_rights, setting.keeper, folder, spare)
        finally:
            set_modes(folder, 0o755, 0o644)
        newest, found = reply if isinstance(reply, tuple) else (2, reply)
        yield Trial(judge(setting.keeper, folder, newest, reply=found), f"step {newest}: {found}")


def set_modes(folder: Path, folders: int, files: int) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


def save_without_rights(keeper: str, folder: Path, spare: Path) -> Iterator[tuple[int, Any]]:
    """Try to save step 3, and restore; root, who may all, becomes another user for it."""
    list(save(keeper, spare, 1))  # imports what it needs, as long as it may
    list(restore(keeper, spare))
    if os.geteuid() == 0:
        os.setuid(NOBODY)
    newest = 2
    with contextlib.suppress(Exception):
        list(save(keeper, folder, 3))
        newest = 3
    yield newest, next(restore(keeper, folder))


def two_writers(setting: Setting) -> Iterator[Trial]:
    """Two runs save the same steps to one folder at the same time; each must find its own, or be told."""
    for _ in range(4):
        with saved(setting.keeper) as folder:
            barrier = CONTEXT.Barrier(2)
            with (
                Process(save_along, setting.keeper, folder, 1, barrier) as first,
                Process(save_along, setting.keeper, folder, 2, barrier) as second,
            ):
                replies = [first.next(), second.next()]
            for writer, reply in zip((1, 2), replies):
                if isinstance(reply, Outcome):
                    outcome = reply
                elif isinstance(reply, Exception):
                    outcome = Outcome.TOLD
                else:
                    outcome = judge(setting.keeper, folder, reply, writer=writer)
                yield Trial(outcome, f"writer {writer}, save: {reply}")


def save_along(keeper: str, folder: Path, writer: int, barrier: Any) -> Iterator[int]:
    """Save ten steps; both writers begin at once, and neither leaves before the other has ended."""
    kept = KEEPERS[keeper](folder)
    barrier.wait(PATIENCE)
    try:
        for step in range(1, 11):
            kept.save(step, tree_of(step, writer))
    finally:
        barrier.wait(PATIENCE)
    yield 10


def clock_backwards(setting: Setting) -> Iterator[Trial]:
    """The times of the files say nothing, or the contrary of their order."""
    now = time.time()
    for what, times in {"falling": (now, now - 3600, now - 7200), "all 0": (0,) * 3, "ahead": (now + 1e6,) * 3}.items():
        with saved(setting.keeper) as folder:
            for step, stamp in enumerate(times, 1):
                before = set(folder.rglob("*"))
                must_save(setting.keeper, folder, step)
                for path in set(folder.rglob("*")) - before:
                    os.utime(path, (stamp, stamp))
            yield Trial(go_on(setting.keeper, folder, 3), f"times {what}")


FAULTS: dict[str, Fault] = {
    "`kill -9` during a save": killed,
    "a byte flipped in the arrays": flipped_arrays,
    "a byte flipped in the rest": flipped_rest,
    "a file cut short": truncated,
    "a full disk (a limit on the size of files)": full,
    "a full disk (a file system of 8 MB)": full_system,
    "a read-only folder": read_only,
    "two writers, one folder": two_writers,
    "a clock that goes backwards": clock_backwards,
}
