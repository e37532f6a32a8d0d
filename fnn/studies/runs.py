"""What is known of each training of a study."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from fnn.training.early_stopping import EarlyStopping, Patience

Status = Literal["waiting", "running", "finished", "stopped", "evicted", "diverged"]
OVER: tuple[Status, ...] = ("finished", "stopped", "evicted", "diverged")


class RunId(NamedTuple):
    """A training: a configuration, a seed and a fold, by their numbers."""

    trial: int
    seed: int
    fold: int


@dataclass
class Run:
    """One training and what was measured of it.

    Attributes:
        id: Which it is.
        status: ``"finished"`` did all its steps; ``"stopped"`` by early stopping; ``"evicted"`` by halving;
            ``"diverged"`` had a loss that was not finite, and stands at the step before; others are not over.
        step: Steps done.
        best_value: The best measurement so far; NaN before the first.
        best_step: Its step; 0 before the first.
        steps: The step of each measurement.
        measured: By name what was measured then.
        patience: What early stopping remembers.
    """

    id: RunId
    status: Status = "waiting"
    step: int = 0
    best_value: float = float("nan")
    best_step: int = 0
    steps: list[int] = field(default_factory=list)
    measured: dict[str, list[Any]] = field(default_factory=dict)
    patience: Patience | None = None

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Take in a measurement."""
        self.steps.append(step)
        for name, value in values.items():
            self.measured.setdefault(name, []).append(value)

    def last(self, name: str) -> float:
        """The newest value of a measurement; NaN before the first."""
        values = self.measured.get(name)
        return float(values[-1]) if values else float("nan")

    def has_waited(self, rule: EarlyStopping | None) -> bool:
        """Whether early stopping's patience is used up, after taking in the newest measurement."""
        if rule is None or not self.steps:
            return False
        if rule.monitor not in self.measured:
            raise ValueError(f"early stopping monitors {rule.monitor!r}; there is {', '.join(self.measured)}")
        self.patience = rule.update(self.patience or rule.init(), self.last(rule.monitor), len(self.steps))
        return rule.is_over(self.patience)

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            **self.id._asdict(),
            "status": self.status,
            "step": self.step,
            "best_step": self.best_step,
            "best_value": _plain(self.best_value),
            "steps": self.steps,
            "measured": {name: [_plain(value) for value in values] for name, values in self.measured.items()},
        }

    @staticmethod
    def of(record: dict[str, Any], rule: EarlyStopping | None) -> "Run":
        """The run of a record."""
        measured = {name: [_read(value) for value in values] for name, values in record["measured"].items()}
        run_id = RunId(record["trial"], record["seed"], record["fold"])
        run = Run(run_id, record["status"], record["step"], _read(record["best_value"]), record["best_step"])
        for number, step in enumerate(record["steps"]):
            run.add(step, {name: values[number] for name, values in measured.items()})
            run.has_waited(rule)
        return run


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as null and as words."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return np.asarray([_read(part) for part in value])
    if value is None or value in ("inf", "-inf"):
        return float("nan" if value is None else value)
    return value
