"""Where measured values go while a network is trained."""

import csv
import json
import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time
from typing import Any, TextIO
from uuid import uuid4

import numpy as np

Log = Callable[[int, dict[str, float]], None]
Metrics = dict[str, np.ndarray]

PATIENCE = 10  # seconds, before a log is said to be slow


def jsonl_log(file: str | Path) -> Log:
    """Append each record to a file as a line of JSON.

    Args:
        file: Where to; a run that goes on appends. Folders are made.

    Returns:
        ``log(step, values)`` for ``fit(..., log=...)``. NaN and infinities, which JSON has not, are strings.

    Example:
        >>> import fnn, pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "log.jsonl")
        >>> log = fnn.jsonl_log(file)
        >>> log(10, {"loss": 0.5})
        >>> file.read_text()
        '{"step": 10, "loss": 0.5}\\n'
    """
    path = Path(file)

    def log(step: int, values: dict[str, float]) -> None:
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        with _appending(path) as out:
            out.write(json.dumps({"step": step, **plain}) + "\n")

    return log


def csv_log(file: str | Path) -> Log:
    """Append each record to a table; a new column goes to the right, and the rows before have nothing there.

    Args:
        file: Where to; a run that goes on appends. Folders are made.

    Returns:
        ``log(step, values)`` for ``fit(..., log=...)``.

    Example:
        >>> import fnn, pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "log.csv")
        >>> log = fnn.csv_log(file)
        >>> log(10, {"loss": 0.5})
        >>> log(20, {"loss": 0.25, "validation/loss": 0.5})
        >>> print(file.read_text().strip())
        step,loss,validation/loss
        10,0.5,
        20,0.25,0.5
    """
    path = Path(file)

    def log(step: int, values: dict[str, float]) -> None:
        record = {"step": step, **values}
        titles = _titles(path)
        wider = [*titles, *(name for name in record if name not in titles)]
        if titles and wider != titles:
            rows = [row + [""] * (len(wider) - len(row)) for row in _rows(path)[1:]]
            _replace(path, [wider, *rows])
        with _appending(path) as out:
            if not titles:
                csv.writer(out, lineterminator="\n").writerow(wider)
            csv.writer(out, lineterminator="\n").writerow([record.get(name, "") for name in wider])

    return log


@contextmanager
def _appending(path: Path) -> Iterator[TextIO]:
    """The file, open at its end; a line that a crash cut short stays by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        cut = size > 0 and file.read(1) != b"\n"
    with path.open("a", newline="") as out:
        out.write("\n" * cut)
        yield out


def _replace(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a table under another name first, so that a crash loses none of the old one."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)
    os.replace(temporary, path)


def _titles(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))


def tensorboard_log(folder: str | Path) -> Log:
    """Write each value as a scalar for TensorBoard.

    A record is on the disk when the call returns.

    Args:
        folder: The folder to give to ``tensorboard --logdir``; made where it is missing. Each call of
            `tensorboard_log` adds a file.

    Returns:
        ``log(step, values)`` for ``fit(..., log=...)``.

    Raises:
        ImportError: when tensorboardX is not installed: ``python -m pip install tensorboardX``.

    Example:
        >>> import fnn, pathlib, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> fnn.tensorboard_log(folder)(10, {"loss": 0.5})
        >>> len(list(pathlib.Path(folder).iterdir()))
        1
    """
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar
    except ImportError as error:
        raise ImportError("tensorboard_log needs tensorboardX: python -m pip install tensorboardX") from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    # SummaryWriter hands its events to a thread, whose queue its flush does not wait for. The suffix separates writers
    # that begin within the same second.
    writer = EventsWriter(str(Path(folder, "events")), f".{uuid4().hex[:8]}")

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.write_event(Event(wall_time=time(), step=step, summary=scalar(name, value)))
        writer.flush()

    weakref.finalize(log, writer.close)
    return log


def join(seen: Sequence[Metrics]) -> Metrics:
    """The metrics of all steps in one array each; NaN for steps without one, as before a resume with other metrics."""
    shapes = {name: values.shape[1:] for metrics in seen for name, values in metrics.items()}

    def part(metrics: Metrics, name: str) -> np.ndarray:
        if name in metrics:
            return metrics[name]
        return np.full((_count(metrics), *shapes[name]), 0 if name == "skipped" else np.nan, np.float32)

    return {name: np.concatenate([part(metrics, name) for metrics in seen]) for name in shapes}


def means(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means over steps in float64, without those that were skipped, which are counted."""
    if "skipped" not in metrics:
        return {name: values.mean(0, dtype=np.float64) for name, values in metrics.items()}
    used = metrics["skipped"] == 0
    rest = {name: values[used] for name, values in metrics.items() if name != "skipped"}
    mean = lambda values: values.mean(0, dtype=np.float64) if len(values) else np.full(values.shape[1:], np.nan)
    found = {name: mean(values) for name, values in rest.items()}
    return found | {"skipped": metrics["skipped"].sum(dtype=np.float64)}


class Logger:
    """Tells logs of what `fit` measured."""

    def __init__(self, logs: Log | Sequence[Log], every: int | None):
        self._logs, self._every = ((logs,) if callable(logs) else tuple(logs)), every
        self._waiting: list[Metrics] = []
        self._held: dict[str, Any] = {}
        self._began, self._spent = perf_counter(), [0.0] * len(self._logs)

    def begin(self, step: int, seen: Sequence[Metrics]) -> None:
        """Go on after a step; ``seen`` are metrics of the steps up to it, as far as they are known."""
        before = join(seen)
        self._waiting, self._held = [], {}
        if self._every is not None and before and (rest := step % self._every):
            self._waiting = [{name: values[-rest:] for name, values in before.items()}]

    def steps(self, step: int, new: Metrics, is_last_of_epoch: bool) -> None:
        """Log means over every so many steps; ``new`` are metrics of the steps up to ``step``.

        Means that end with an epoch are kept for `epoch`, so that a step has one record.
        """
        if not self._logs or self._every is None:
            return
        self._waiting.append(new)
        at = step - sum(map(_count, self._waiting))
        if at // self._every == step // self._every:
            return
        joined = join(self._waiting)
        for end in range((at // self._every + 1) * self._every, step + 1, self._every):
            values = means({name: values[: end - at] for name, values in joined.items()})
            if end == step and is_last_of_epoch:
                self._held = values
            else:
                self._write(end, values)
            joined, at = {name: values[end - at :] for name, values in joined.items()}, end
        self._waiting = [joined]

    def epoch(self, step: int, row: Mapping[str, Any]) -> None:
        """Log an epoch; beside means over some steps, its means over all of them are called ``"epoch/..."``."""
        if self._every is not None:
            row = {
                name if name.startswith("validation/") else f"epoch/{name}": row[name] for name in row if name != "step"
            }
        self._write(step, {**self._held, **row})
        self._held = {}

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        """Pass on the values that are one number."""
        plain = {name: float(value) for name, value in values.items() if name != "step" and np.ndim(value) == 0}
        for number, log in enumerate(self._logs):
            began = perf_counter()
            log(step, plain)
            self._spent[number] += perf_counter() - began
            self._judge(number, log)

    def _judge(self, number: int, log: Log) -> None:
        """Tell once of a log that takes more time than the training: the device waits for it."""
        spent, whole = self._spent[number], perf_counter() - self._began
        if whole > PATIENCE and spent > whole / 2:
            name = getattr(log, "__qualname__", None) or repr(log)
            warnings.warn(
                f"the log {name} took {spent:.0f} of {whole:.0f} seconds, while the device waited; log less "
                "often (log_every), or let it hand its work to a thread",
                UserWarning,
                stacklevel=2,
            )
            self._spent[number] = -math.inf


def _count(metrics: Metrics) -> int:
    return len(next(iter(metrics.values())))
