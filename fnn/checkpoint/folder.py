"""The checkpoints of a run, in a folder."""

import contextlib
import math
import os
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fnn.checkpoint.archive import read_note
from fnn.checkpoint.disk import lock, remove_leftovers
from fnn.checkpoint.errors import CheckpointError, CheckpointWarning, MisfitError
from fnn.checkpoint.load import load
from fnn.checkpoint.save import Content, prepare, write_content
from fnn.ops.checks import check_counts

NAME = re.compile(r"(\d{6,})-step-(\d+)\.safetensors")


class Saved(NamedTuple):
    """A checkpoint in a folder: the how-manieth it is, of which step, and its file."""

    number: int
    step: int
    file: Path


class Restored(NamedTuple):
    """What `Checkpoints.restore` returns.

    Attributes:
        step: Its step.
        tree: The tree.
        metrics: What was measured when it was saved.
        note: What it was saved with.
    """

    step: int
    tree: Any
    metrics: dict[str, float]
    note: Any


class Checkpoints:
    """The checkpoints of a run: the last few and the best, in a folder.

    Each is a file of its own that `fnn.load` reads, called ``000012-step-3400.safetensors``; which is the newest and
    which the best is read from the files alone, and no clock is asked. One process at a time writes to a folder.

    Args:
        folder: Where; made when the first is saved.
        keep: How many of the newest stay.
        maximize: Name of a metric, such as ``"validation/accuracy"``: the checkpoint with its largest value, the best
            one, stays too.
        minimize: Name of a metric, such as ``"validation/loss"``: the checkpoint with its smallest value, the best one,
            stays too. With neither there is no best one.
        every: Steps after which `fnn.fit` and `fnn.training` save. None: after each epoch. With ``maximize`` or
            ``minimize``, `fit` saves after each epoch too.
        background: Whether to write while the run goes on. The tree is copied first, so it may be donated or changed;
            an error is raised by the next call.

    Raises:
        ValueError: when ``keep`` or ``every`` is not positive, or both ``maximize`` and ``minimize`` are given.
        TypeError: when ``keep`` or ``every`` is no int, or ``maximize`` or ``minimize`` no name.

    Example:
        >>> import fnn, jax.numpy as jnp, tempfile
        >>> with fnn.Checkpoints(tempfile.mkdtemp(), keep=2, minimize="loss") as checkpoints:
        ...     for step, loss in [(10, 0.5), (20, 0.3), (30, 0.4), (40, 0.6)]:
        ...         checkpoints.save(step, {"w": jnp.full(2, loss)}, metrics={"loss": loss})
        >>> checkpoints.steps()
        [20, 30, 40]
        >>> checkpoints.best_step(), checkpoints.restore().step
        (20, 40)
    """

    def __init__(
        self, folder: str | Path, *, keep: int = 3, maximize: str | None = None, minimize: str | None = None,
        every: int | None = None, background: bool = False,
    ):  # fmt: skip
        check_counts(keep=(keep, 1), every=(every, 1))
        for name, metric in {"maximize": maximize, "minimize": minimize}.items():
            if not isinstance(metric, str | None):
                raise TypeError(f"{name} is the name of a metric, such as {name}='validation/loss', got {metric!r}")
        if maximize is not None and minimize is not None:
            raise ValueError(f"give maximize={maximize!r} or minimize={minimize!r}: there is one best checkpoint")
        self.folder, self.keep, self.every, self.background = Path(folder), keep, every, background
        self.maximize, self.minimize = maximize, minimize
        self._lock: Any = None
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        goal = {"maximize": self.maximize, "minimize": self.minimize}
        best = "".join(f", {name}={metric!r}" for name, metric in goal.items() if metric is not None)
        return f"Checkpoints({str(self.folder)!r}, keep={self.keep}{best})"

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close; an error of that must not hide the one that ended the block."""
        try:
            self.close()
        except CheckpointError as other:
            if not isinstance(error, Exception):  # an exit that says that all is saved must not pass
                raise
            error.add_note(f"Besides, what was saved last is lost: {other}")

    @property
    def monitor(self) -> str | None:
        """The metric that decides which checkpoint is the best; None where nothing does."""
        return self.minimize if self.maximize is None else self.maximize

    def save(self, step: int, tree: Any, *, metrics: Mapping[str, float] | None = None, note: Any = None) -> None:
        """Write a checkpoint, and remove those that need not stay.

        Args:
            step: Number of the step.
            tree: A pytree of arrays, keys and numbers.
            metrics: What was measured, by name.
            note: Anything that JSON can hold.

        Raises:
            CheckpointError: when it cannot be written, or another process writes to this folder; older ones stay.
            TypeError: for a leaf that a file cannot hold.
            ValueError: when the metric that decides which is the best is not among the metrics.
        """
        if self.monitor is not None and self.monitor not in (metrics or {}):
            there = ", ".join(map(repr, metrics or {})) or "nothing"
            raise ValueError(
                f"the best checkpoint is decided by {self.monitor!r}, which metrics lacks (it has {there})"
            )
        self.wait()
        self._own()
        about = {"metrics": {name: _finite(value) for name, value in (metrics or {}).items()}, "note": note}
        content = prepare(tree, about)
        number = max((saved.number for saved in self._all()), default=0) + 1
        file = self.folder / f"{number:06d}-step-{int(step)}.safetensors"
        if not self.background:
            self._write(file, content)
            return
        self._writer = threading.Thread(target=self._write_aside, args=(file, content.copied()))
        self._writer.start()

    def restore(self, like: Any = None, *, best: bool = False, back: int = 0) -> Restored | None:
        """Read the newest checkpoint that is whole; a damaged one is passed over with a warning.

        Args:
            like: A tree of the wanted structure, as for `load`.
            best: Whether to read the best one in its place; where it is damaged, the newest.
            back: How many of the newest to pass over.

        Returns:
            Step, tree, metrics and note; None when the folder has no such checkpoint.

        Raises:
            CheckpointError: when all are damaged, or the newest whole one does not fit ``like``.
            ValueError: when the best is asked for, and nothing decides which that is.
        """
        if best and self.monitor is None:
            raise ValueError(
                "nothing decides which checkpoint is the best; make them by "
                'fnn.Checkpoints(folder, minimize="validation/loss") or by maximize="validation/accuracy"'
            )
        self.wait()
        found = sorted(self._all(), reverse=True)[back:]
        if best:
            first = self._best(found)
            found = [] if first is None else [first, *(saved for saved in found if saved != first)]
        for position, saved in enumerate(found):
            try:
                about, tree = _read_about(saved.file), load(saved.file, like)
            except MisfitError:
                raise
            except (CheckpointError, OSError) as error:
                if position == len(found) - 1:
                    raise CheckpointError(
                        self.folder, f"no checkpoint in it is whole; the last error: {error}"
                    ) from error
                warnings.warn(f"{error}; an older checkpoint is taken", CheckpointWarning, stacklevel=2)
                continue
            return Restored(saved.step, tree, *about)
        return None

    def steps(self) -> list[int]:
        """The steps of all checkpoints in the folder, in the order in which they were saved."""
        self.wait()
        return [saved.step for saved in sorted(self._all())]

    def best_step(self) -> int | None:
        """The step of the best one; None when there is none."""
        self.wait()
        saved = self._best(self._all())
        return None if saved is None else saved.step

    def wait(self) -> None:
        """Wait until what is written in the background is on the disk.

        Raises:
            CheckpointError: when it could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait, and let others write to the folder."""
        try:
            self.wait()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _own(self) -> None:
        if self._lock is not None:
            return
        path = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b", buffering=0)  # noqa: SIM115 - it is open for as long as the folder is ours
        except OSError as error:
            raise CheckpointError(self.folder, f"it cannot be written to: {error.strerror or error}") from error
        if not lock(file):
            file.seek(0)
            owner = file.read(20).decode(errors="replace").strip()
            file.close()
            raise CheckpointError(self.folder, f"process {owner} writes to it; stop that, or choose another folder")
        with contextlib.suppress(OSError):  # it only helps whoever is refused
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        self._lock = file
        remove_leftovers(self.folder)

    def _write_aside(self, file: Path, content: Content) -> None:
        try:
            self._write(file, content)
        except BaseException as error:
            self._error = error

    def _write(self, file: Path, content: Content) -> None:
        write_content(file, content)
        found = sorted(self._all(), reverse=True)
        staying = {*found[: self.keep], self._best(found)}
        for saved in found:
            if saved not in staying:
                saved.file.unlink(missing_ok=True)

    def _all(self) -> list[Saved]:
        if not self.folder.is_dir():
            return []
        matches = [(NAME.fullmatch(file.name), file) for file in self.folder.iterdir()]
        return [Saved(int(match[1]), int(match[2]), file) for match, file in matches if match]

    def _best(self, found: list[Saved]) -> Saved | None:
        values = {saved: self._value(saved) for saved in sorted(found)} if self.monitor else {}
        values = {saved: value for saved, value in values.items() if not math.isnan(value)}
        return (min if self.maximize is None else max)(values, key=lambda saved: values[saved], default=None)

    def _value(self, saved: Saved) -> float:
        try:
            return _read_about(saved.file)[0].get(str(self.monitor), math.nan)
        except (CheckpointError, OSError):
            return math.nan


def _read_about(file: Path) -> tuple[dict[str, float], Any]:
    """Metrics and note of a checkpoint; a file that `Checkpoints.save` did not write is no checkpoint."""
    about = read_note(file)
    try:
        return {name: float(value) for name, value in about["metrics"].items()}, about["note"]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise CheckpointError(file, "it was not saved by fnn.Checkpoints") from None


def _finite(value: Any) -> float | str:
    """A number for JSON, which has no NaN; float() reads either."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
