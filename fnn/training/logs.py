"""Where measured values go while a network is trained."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Log = Callable[[int, dict[str, float]], None]
Metrics = dict[str, np.ndarray]


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
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as out:
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
        path.parent.mkdir(parents=True, exist_ok=True)
        if wider != titles:
            rows = [row + [""] * (len(wider) - len(row)) for row in _rows(path)[1:]]
            with path.open("w", newline="") as out:
                csv.writer(out, lineterminator="\n").writerows([wider, *rows])
        with path.open("a", newline="") as out:
            csv.writer(out, lineterminator="\n").writerow([record.get(name, "") for name in wider])

    return log


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

    Args:
        folder: What ``tensorboard --logdir`` is given.

    Returns:
        ``log(step, values)`` for ``fit(..., log=...)``.

    Raises:
        ImportError: when tensorboardX is not installed: ``pip install fnn[tensorboard]``.

    Example:
        >>> import fnn, pathlib, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> fnn.tensorboard_log(folder)(10, {"loss": 0.5})
        >>> len(list(pathlib.Path(folder).iterdir()))
        1
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard_log needs tensorboardX: pip install fnn[tensorboard]") from error
    writer = SummaryWriter(str(folder))

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def join(seen: Sequence[Metrics]) -> Metrics:
    """The metrics of all steps in one array each."""
    return {name: np.concatenate([metrics[name] for metrics in seen]) for name in (seen[0] if seen else {})}


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
        if every is not None and every < 1:
            raise ValueError(f"log_every must be a positive number of steps, got {every}")
        self._logs, self._every = ((logs,) if callable(logs) else tuple(logs)), every

    def steps(self, step: int, seen: Sequence[Metrics]) -> None:
        """Tell of every so many steps of an epoch; ``seen`` are its metrics, of which the last are new."""
        if not self._logs or self._every is None:
            return
        lengths = [len(next(iter(metrics.values()))) for metrics in seen]
        done, new = sum(lengths), lengths[-1]
        ends = [end for end in range(self._every, done + 1, self._every) if end > done - new]
        if not ends:
            return
        joined = join(seen)
        for end in ends:
            part = {name: values[end - self._every : end] for name, values in joined.items()}
            self.row(step - done + end, means(part))

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell of those values that are one number."""
        plain = {name: float(value) for name, value in values.items() if name != "step" and np.ndim(value) == 0}
        for log in self._logs:
            log(step, plain)
