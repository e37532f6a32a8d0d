"""What `fit` must remember to go on as if it had never stopped."""

import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from fnn.checkpoint.errors import CheckpointError, CheckpointWarning, MisfitError
from fnn.checkpoint.folder import Checkpoints
from fnn.checkpoint.load import place
from fnn.checkpoint.structure import ANYTHING, leaves_of, path_name
from fnn.checkpoint.table import show_table
from fnn.core.layer import Layer
from fnn.core.specs import show
from fnn.data import Batches
from fnn.training.early_stopping import Patience
from fnn.training.logs import Metrics, join
from fnn.training.loop import Step, program_of
from fnn.training.step import TrainState

SAMPLED = 64  # rows of the data that are compared
DATA = {"batch size", "data", "rows", "order of the rows", "last batch"}  # must be the same: steps are counted in it
TRACED = {"program", "traced by", "loss", "penalty", "augment", "watch", "skips steps", "step"}

Goal = list[Any]  # the name of the metric that early stopping watches, and whether larger is better; as JSON has it
Resume = Literal["warn", "strict"]


class Past(NamedTuple):
    """All that `fit` knows between two reports.

    Attributes:
        run: The state.
        began: The step of the first epoch's start.
        rows: The history: a row for each epoch.
        seen: Metrics of the steps since the last row, ``(steps,)`` each.
        best: The best state so far, where there is early stopping.
        patience: What early stopping remembers.
        stopped: Whether ``on_epoch`` asked to stop after the last row.
    """

    run: TrainState
    began: int
    rows: Sequence[dict[str, Any]] = ()
    seen: Sequence[Metrics] = ()
    best: TrainState | None = None
    patience: Patience | None = None
    stopped: bool = False

    @property
    def steps_of_epoch(self) -> int:
        """How many steps of the present epoch are done."""
        return sum(len(next(iter(metrics.values()))) for metrics in self.seen)


def keep(checkpoints: Checkpoints, past: Past, identity: dict[str, str], goal: Goal | None) -> None:
    """Save it; ``goal`` is what early stopping watches."""
    row = past.rows[-1] if past.rows and not past.seen else {}  # what was measured is of this very state
    metrics = {name: value for name, value in row.items() if np.ndim(value) == 0}
    if checkpoints.monitor is not None:
        metrics.setdefault(checkpoints.monitor, float("nan"))
    columns = history(past.rows)
    tree = {"run": past.run, "history": columns, "seen": join(past.seen)}
    tree |= {} if past.best is None else {"best": past.best}
    patience = None if past.patience is None else [past.patience.best.hex(), *past.patience[1:]]
    note = {"began": past.began, "patience": patience, "goal": goal, "stopped": past.stopped, "of": identity}
    note["columns"] = list(columns)  # in the order in which they are shown; a file sorts them
    checkpoints.save(int(past.run.step), tree, metrics=metrics, note=note)


def resume(
    checkpoints: Checkpoints, fresh: Past, goal: Goal | None, back: int = 0
) -> tuple[Past, dict[str, str]] | None:
    """What was saved last, or so many checkpoints before, and of which run; None where nothing was.

    Early stopping that is new, or watches something else than before, begins at the state that was saved.

    Raises:
        MisfitError: when it was saved by another network or optimizer, with a table of what differs.
    """
    like = {"run": fresh.run, "history": ANYTHING, "seen": ANYTHING, "best": ANYTHING}
    found = checkpoints.restore(like, back=back)
    if found is None:
        return None
    tree, patience, best = found.tree, fresh.patience, found.tree["run"]
    if found.note["patience"] is not None and found.note["goal"] == goal:
        patience = Patience(float.fromhex(found.note["patience"][0]), *found.note["patience"][1:])
        best = reshape_like(tree["best"], fresh.run, checkpoints.folder)
    past = Past(
        run=tree["run"],
        began=found.note["began"],
        rows=_rows({name: tree["history"][name] for name in found.note.get("columns", tree["history"] or ())}),
        seen=[tree["seen"]] if tree["seen"] else [],
        best=None if goal is None else best,
        patience=None if goal is None else patience,
        stopped=found.note.get("stopped", False),
    )
    return past, found.note["of"]


def load_run(
    checkpoints: Checkpoints | str | Path, like: TrainState | None = None, *, best: bool = False
) -> TrainState:
    """Read the state of a run from its checkpoints, to predict, to evaluate or to train further.

    Args:
        checkpoints: What `fit` or `training` saved to, or its folder.
        like: A state of the same shapes, such as `train_init` makes. Without it the optimizer's state is of plain dicts
            and tuples: parameters and state are whole, and `fit` cannot train further.
        best: Whether to read the best state in place of the newest: by the metric that ``checkpoints`` maximize or
            minimize, or else by early stopping.

    Returns:
        The state.

    Raises:
        CheckpointError: when there is no checkpoint, or none that is whole, or it holds no `TrainState`.
        MisfitError: when it does not fit ``like``.
        ValueError: when the best is asked for, and neither ``checkpoints`` nor early stopping decided which that is.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, optax, tempfile
        >>> net, optimizer, folder = fnn.dense(1), optax.sgd(0.1), tempfile.mkdtemp()
        >>> x, y = jnp.ones((32, 2)), jnp.ones((32, 1))
        >>> run = fnn.train_init(net, optimizer, jax.random.key(0), x)
        >>> objective = fnn.supervised(net, optax.losses.squared_error)
        >>> _ = fnn.fit(objective, optimizer, run, (x, y), checkpoints=fnn.Checkpoints(folder), progress=False)
        >>> run = fnn.load_run(folder)
        >>> fnn.predict(net, run.params, run.state, x).shape
        (32, 1)
    """
    checkpoints = checkpoints if isinstance(checkpoints, Checkpoints) else Checkpoints(checkpoints)
    parts = ("run", "best", "history", "seen", "metrics")
    wanted = None if like is None else dict.fromkeys(parts, ANYTHING) | {"run": like}
    found = checkpoints.restore(wanted, best=best and checkpoints.monitor is not None)
    if found is None:
        raise CheckpointError(checkpoints.folder, "it holds no checkpoint")
    tree = found.tree if isinstance(found.tree, dict) else {}
    name = "best" if best and checkpoints.monitor is None else "run"
    if name == "best" and tree.get("best") is None:
        raise ValueError(
            f"nothing decided which state in {checkpoints.folder} is the best; pass "
            'fnn.Checkpoints(folder, minimize="validation/loss") or maximize="validation/accuracy", as to fit'
        )
    run = tree.get(name)
    if isinstance(run, TrainState):
        return run
    if not isinstance(run, dict) or set(run) != set(TrainState._fields):
        raise CheckpointError(
            checkpoints.folder, "it holds no TrainState; read it by fnn.Checkpoints(folder).restore()"
        )
    return TrainState(**run) if like is None else reshape_like(run, like, checkpoints.folder)


def reshape_like(tree: Any, like: Any, file: Path) -> Any:
    """A tree of dicts and NumPy arrays in the containers of another, and where its arrays lie."""
    leaves = leaves_of(tree)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: place(leaves[path_name(path)], leaf, path_name(path), file), like
    )


@dataclass
class Identity:
    """What a run is, to be compared with what it was when it was saved.

    Attributes:
        folder: Of the checkpoints.
        texts: What it is now.
        mode: What to do where code or configuration have changed.
        then: What it was, where that is known.
    """

    folder: Path
    texts: dict[str, str]
    mode: Resume
    then: Mapping[str, str] | None = None

    def compare(self, then: Mapping[str, str]) -> None:
        """Refuse other data; report other code and another configuration by a warning, or refuse them where strict."""
        self.then = then
        self._judge(self.texts, then)

    def note_program(self, step: Step, run: Any, batch: Any) -> None:
        """Add what a step computes, where that is not known, and compare it; ``batch`` may be specs."""
        if "program" in self.texts:
            return
        self.texts |= {"program": program_of(step, run, batch), "traced by": f"JAX {jax.__version__}"}
        if self.then is not None:
            self._judge(*({name: t for name, t in of.items() if _is_traced(name)} for of in (self.texts, self.then)))

    def noting(self, step: Step, run: Any, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches, the first of which tells what a step computes."""
        for batch in batches:
            self.note_program(step, run, batch)
            yield batch

    def _judge(self, now: Mapping[str, str], then: Mapping[str, str]) -> None:
        rows = [row for row in differences(now, then) if row[0] != "traced by"]
        if "program" not in now or now["program"] == then.get("program"):  # what it describes says no more
            rows = [row for row in rows if not _is_traced(row[0])]
        if self.mode == "strict" or any(row[0] in DATA for row in rows):
            _refuse(self.folder, rows, "run")
        elif rows:
            lines = [f"{self.folder}: resuming a run whose code or configuration has changed", _table(rows, "run")]
            if any(row[0] == "program" for row in rows):
                lines.append("  The program is a checksum of what a step computes, with all constants.")
                if now["traced by"] != (before := then.get("traced by", now["traced by"])):
                    lines.append(
                        f"  It was traced by {before}, now by {now['traced by']}; that may be all that differs."
                    )
            warnings.warn("\n".join(lines), CheckpointWarning, stacklevel=4)


def compare(folder: Path, now: Mapping[str, str], then: Mapping[str, str], kind: str = "run") -> None:
    """Refuse to resume what another run or study wrote, and say what differs."""
    _refuse(folder, differences(now, then), kind)


def _is_traced(name: str) -> bool:
    """Whether a text describes what a step computes, as its program does."""
    return name in TRACED or name.split("/")[0] == "network"


def differences(now: Mapping[str, str], then: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """The texts that differ, with their names, long ones around the place where they do."""
    rows = [(name, *_shorten(now.get(name, "-"), then.get(name, "-"))) for name in {**now, **then}]
    return [row for row in rows if row[1] != row[2]]


def _table(rows: Sequence[tuple[str, str, str]], kind: str) -> str:
    return show_table((f"of the {kind}", "now", "when it was saved"), rows)


def _refuse(folder: Path, rows: Sequence[tuple[str, str, str]], kind: str) -> None:
    if rows:
        weights = "; to train something else from its weights, read them by fnn.load" if kind == "run" else ""
        raise MisfitError(
            folder,
            f"its {kind} differs from this one\n{_table(rows, kind)}\n"
            f"  Choose another folder, or make them equal{weights}.",
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
    """What a run is, as texts that are the same in another process."""
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


def order_of(data: Batches) -> str:
    """The order of the rows of batches, as a text."""
    return "as given" if data.key is None else str(jax.random.key_data(data.key))


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
    """By name one value for each epoch, NaN where it was not measured."""
    shapes = {name: np.shape(value) for row in rows for name, value in row.items()}
    value = lambda row, name, shape: row[name] if name in row else np.full(shape, np.nan)
    return {name: np.asarray([value(row, name, shape) for row in rows]) for name, shape in shapes.items()}


def _rows(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values()), ()))
    plain = lambda value: value if value.shape else value.item()
    return [{name: plain(values[number]) for name, values in columns.items()} for number in range(count)]
