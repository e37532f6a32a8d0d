"""What `fit` must remember to go on as if it had never stopped."""

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn.checkpoint.errors import MisfitError
from fnn.checkpoint.folder import Checkpoints
from fnn.checkpoint.structure import ANYTHING
from fnn.checkpoint.table import show_table
from fnn.core.layer import Layer
from fnn.core.specs import show
from fnn.data import Batches
from fnn.training.early_stopping import Patience
from fnn.training.logs import Metrics, join
from fnn.training.step import TrainState

SAMPLED = 64  # rows of the data that are compared


class Past(NamedTuple):
    """All that `fit` knows between two reports.

    Attributes:
        run: The state.
        began: The step of the first epoch's start.
        rows: The history: a row for each epoch.
        seen: Metrics of the steps since the last row, ``(steps,)`` each.
        best: The best state so far, where there is early stopping.
        patience: What early stopping remembers.
    """

    run: TrainState
    began: int
    rows: Sequence[dict[str, Any]] = ()
    seen: Sequence[Metrics] = ()
    best: TrainState | None = None
    patience: Patience | None = None

    @property
    def steps_of_epoch(self) -> int:
        """How many steps of the present epoch are done."""
        return sum(len(next(iter(metrics.values()))) for metrics in self.seen)


def keep(checkpoints: Checkpoints, past: Past, identity: dict[str, str]) -> None:
    """Save it."""
    row = past.rows[-1] if past.rows and not past.seen else {}  # what was measured is of this very state
    metrics = {name: value for name, value in row.items() if np.ndim(value) == 0}
    if checkpoints.monitor is not None:
        metrics.setdefault(checkpoints.monitor, float("nan"))
    tree = {"run": past.run, "history": history(past.rows), "seen": join(past.seen)}
    tree |= {} if past.best is None else {"best": past.best}
    patience = None if past.patience is None else [past.patience.best.hex(), *past.patience[1:]]
    note = {"began": past.began, "patience": patience, "of": identity}
    checkpoints.save(int(past.run.step), tree, metrics=metrics, note=note)


def resume(checkpoints: Checkpoints, fresh: Past, identity: dict[str, str], back: int = 0) -> Past | None:
    """What was saved last, or so many checkpoints before; None where nothing was.

    Raises:
        MisfitError: when it was saved by another network, optimizer, or on other data, with a table of what differs.
    """
    like = {"run": fresh.run, "history": ANYTHING, "seen": ANYTHING}
    like |= {} if fresh.best is None else {"best": fresh.run}
    found = checkpoints.restore(like, back=back)
    if found is None:
        return None
    compare(checkpoints.folder, identity, found.note["of"])
    tree, patience = found.tree, found.note["patience"]
    return Past(
        run=tree["run"],
        began=found.note["began"],
        rows=_rows(tree["history"] or {}),
        seen=[tree["seen"]] if tree["seen"] else [],
        best=tree.get("best"),
        patience=None if patience is None else Patience(float.fromhex(patience[0]), *patience[1:]),
    )


def compare(folder: Path, now: Mapping[str, str], then: Mapping[str, str], kind: str = "run") -> None:
    """Refuse to go on with what another run or study wrote, and say what differs."""
    rows = [(name, *_shorten(now.get(name, "-"), then.get(name, "-"))) for name in {**now, **then}]
    rows = [row for row in rows if row[1] != row[2]]
    if rows:
        table = show_table((f"of the {kind}", "now", "when it was saved"), rows)
        weights = "; to train something else from its weights, read them by fnn.load" if kind == "run" else ""
        raise MisfitError(
            folder,
            f"its {kind} differs from this one\n{table}\n  Choose another folder, or make them equal{weights}.",
        )


def _shorten(a: str, b: str, width: int = 60) -> tuple[str, str]:
    """Two long texts around the place where they differ."""
    if a == b or max(len(a), len(b)) <= width:
        return a, b
    first = next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    begin = max(0, first - width // 3)
    cut = lambda text: ("... " if begin else "") + text[begin : begin + width].replace("\n", " ")
    return cut(a), cut(b)


def identify(objective: Any, data: Any, **others: Any) -> dict[str, str]:
    """What must be the same for a run to go on, as texts."""
    parts = {
        "loss": getattr(objective, "loss", objective),
        "metrics": sorted(getattr(objective, "metrics", ())),
        "penalty": getattr(objective, "penalty", None),
        **others,
    }
    texts = {name: text_of(part) for name, part in parts.items() if part is not None}
    if isinstance(getattr(objective, "net", None), Layer):
        texts |= _layers(objective.net, "network")
    return texts | identify_data(data) if isinstance(data, Batches) else texts


def identify_data(data: Batches) -> dict[str, str]:
    """What must be the same of the data, as texts."""
    return {"batch size": str(data.batch_size), "data": show(data.data), "rows": _sample(data.data)}


def _layers(net: Layer, path: str) -> dict[str, str]:
    """The layers of a network and how they are configured, by path."""
    if not net.children:
        return {path: text_of(net)}
    return {place: text for name, child in net.children for place, text in _layers(child, f"{path}/{name}").items()}


def text_of(part: Any) -> str:
    """A function or a layer as a text that is the same in another process."""
    text = repr(part) if isinstance(part, Layer) else getattr(part, "__qualname__", None) or repr(part)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _sample(data: Any) -> str:
    """A checksum of some rows of every array."""
    found = 0
    for leaf in jax.tree.leaves(data):
        places = np.linspace(0, len(leaf) - 1, min(SAMPLED, len(leaf)), dtype=np.int32)
        found = zlib.crc32(np.ascontiguousarray(leaf[places]).tobytes(), found)
    return f"{found:08x}"


def history(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """By name one value for each epoch."""
    return {name: np.asarray([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def _rows(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values()), ()))
    plain = lambda value: value if value.shape else value.item()
    return [{name: plain(values[number]) for name, values in columns.items()} for number in range(count)]
