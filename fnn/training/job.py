"""What `fit` does from report to report."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checkpoint.folder import Checkpoints
from fnn.core.arrays import as_arrays
from fnn.core.keys import fold
from fnn.data import Batches, is_arrays
from fnn.training.costs import Costs
from fnn.training.early_stopping import EarlyStopping
from fnn.training.evaluate import evaluate
from fnn.training.faults import NonFiniteError, find_non_finite
from fnn.training.logs import Logger, Metrics, join, means
from fnn.training.loop import Report, Step, reports
from fnn.training.profile import Profiler
from fnn.training.progress import Progress
from fnn.training.resume import Goal, Identity, Past, history, keep, resume
from fnn.training.signals import TERMINATED
from fnn.training.step import Objective, TrainState, all_finite

STEPS_PER_REPORT = 16  # of an iterable: so many batches are kept to explain a loss that is not finite
ATTEMPTS = 10  # steps that are skipped, or checkpoints that are restored, one after another


@dataclass
class Kept:
    """Checkpoints, whose run they are of, and the step of the last.

    Attributes:
        checkpoints: Where they are.
        identity: What the run is.
        goal: What early stopping watches.
        step: Of the checkpoint that was saved or restored last.
    """

    checkpoints: Checkpoints
    identity: Identity
    goal: Goal | None
    step: int | None = None

    def save(self, past: Past) -> None:
        if self.step != int(past.run.step):
            keep(self.checkpoints, past, self.identity.texts, self.goal)
            self.step = int(past.run.step)

    def restore(self, fresh: Past, before: int | None = None) -> Past | None:
        """The newest; or the newest of those of a step before."""
        steps = self.checkpoints.steps()[::-1]
        back = 0 if before is None else next((n for n, step in enumerate(steps) if step < before), len(steps))
        found = resume(self.checkpoints, fresh, self.goal, back)
        if found is None:
            self.step = None
            return None
        past, then = found
        self.step = None if back else int(past.run.step)
        self.identity.compare(then)
        return past

    def is_due(self, past: Past, is_last_of_epoch: bool) -> bool:
        every = self.checkpoints.every
        if is_last_of_epoch and (every is None or self.checkpoints.monitor is not None):
            return True
        return every is not None and (int(past.run.step) - past.began) % every == 0


@dataclass(frozen=True)
class Job:
    """What stays while `fit` runs."""

    objective: Objective
    step: Step
    data: Any
    epochs: int
    validation: Any
    validation_batch_size: int
    early_stopping: EarlyStopping | None
    on_epoch: Callable[[TrainState, dict[str, Any]], Any] | None
    evaluate_with: Callable[[TrainState], Any] | None
    kept: Kept | None
    logger: Logger
    profiler: Profiler
    costs: Costs
    bar: Progress
    nan_warning: "NanWarning" = field(default_factory=lambda: NanWarning())

    def run(self, past: Past, asked: Callable[[], bool]) -> Past:
        """Train from where the past ends."""
        first = int(past.run.step)
        self.logger.begin(first, past.seen)
        try:
            for report, is_last_of_epoch in self.reports(past, asked):
                new = past._replace(run=report.run, seen=[*past.seen, report.metrics])
                self.bar.update(report.steps, report.metrics)
                self.logger.steps(int(new.run.step), report.metrics, is_last_of_epoch)
                past = self.end_epoch(new) if is_last_of_epoch else new  # at once, also where Ctrl-C comes meanwhile
                if self.kept is not None and (self.kept.is_due(past, is_last_of_epoch) or asked()):
                    self.kept.save(past)
                if asked():
                    self.bar.say(f"asked to stop: saved after step {int(past.run.step)}")
                    raise SystemExit(TERMINATED)
                if self.is_over(past):
                    self.bar.say(self.reason(past))
                    break
        except NonFiniteError as error:
            error.history = history(past.rows)
            raise
        except KeyboardInterrupt:
            if int(past.run.step) == first:  # nothing is trained that could be returned
                raise
            self.bar.say(f"interrupted after step {int(past.run.step)}: returning what is trained so far")
        if self.kept is not None:
            self.kept.save(past)
        if asked():
            raise SystemExit(TERMINATED)
        return past

    def is_over(self, past: Past) -> bool:
        return not past.seen and (self.has_lost_patience(past) or (past.stopped and self.on_epoch is not None))

    def has_lost_patience(self, past: Past) -> bool:
        return (
            self.early_stopping is not None and past.patience is not None and self.early_stopping.is_over(past.patience)
        )

    def reason(self, past: Past) -> str:
        if self.early_stopping is None or past.patience is None or not self.has_lost_patience(past):
            return f"on_epoch stopped the training after epoch {len(past.rows)}"
        return f"stopped early: {self.early_stopping.monitor} was best in epoch {past.patience.best_epoch}"

    def end_epoch(self, past: Past) -> Past:
        """Measure, record, and see whether it was the best."""
        run = past.run
        row = _means(past.seen) | {"step": int(run.step)}
        if self.validation is not None:
            key = fold(run.key, "validation")
            size = self.validation_batch_size
            params = run.params if self.evaluate_with is None else self.evaluate_with(run)
            measured = evaluate(self.objective, params, run.state, self.validation, batch_size=size, key=key)
            self.nan_warning.look(measured, len(past.rows) + 1, self.validation)
            row |= {f"validation/{name}": value for name, value in measured.items()}
        past = past._replace(rows=[*past.rows, row], seen=[])
        self.bar.epoch({name: value for name, value in row.items() if name != "step"})
        self.logger.epoch(int(run.step), row)
        if self.early_stopping is not None and past.patience is not None:
            epoch = len(past.rows)
            patience = self.early_stopping.update(past.patience, _monitored(self.early_stopping, row), epoch)
            past = past._replace(patience=patience, best=run if patience.best_epoch == epoch else past.best)
        if self.on_epoch is None:
            return past
        answer = self.on_epoch(run, dict(row))
        if answer not in (None, "stop"):
            raise ValueError(f'on_epoch returned {answer!r}; return "stop" to end the training, or nothing')
        return past._replace(stopped=answer == "stop")

    def reports(self, past: Past, asked: Callable[[], bool]) -> Iterator[tuple[Report, bool]]:
        """Reports of what is left, each with whether it ends an epoch; what is not finite raises."""
        if self.is_over(past):
            return
        if isinstance(self.data, Batches):
            yield from self.reports_of_arrays(past, self.data, asked)
            return
        run, check = past.run, Check()
        for epoch in range(len(past.rows), self.epochs):
            done = past.steps_of_epoch if epoch == len(past.rows) else 0
            for report, is_last_of_epoch in self.reports_of_epoch(run, past.began, done, asked, check):
                run = report.run
                yield report, is_last_of_epoch

    def reports_of_arrays(self, past: Past, data: Batches, asked: Callable[[], bool]) -> Iterator[tuple[Report, bool]]:
        run, at, check = past.run, data.start + int(past.run.step) - past.began, Check()
        limit = self.limit(past.began, asked)
        left = replace(data, start=at)
        found = reports(self.step, run, left, None, lambda at: limit(at - data.start))
        for report in self.profiler.around(self.costs.around(found, lambda: data[data.start]), int(run.step)):
            if check.fails(report):
                numbers = range(at, at + report.steps)
                again = ((data[number], np.asarray(data.indices(number))) for number in numbers)
                raise find_non_finite(self.objective, self.step, run, again)
            run, at = report.run, at + report.steps
            yield report, (at - data.start) % data.steps_per_epoch == 0

    def reports_of_epoch(
        self, run: TrainState, began: int, done: int, asked: Callable[[], bool], check: "Check"
    ) -> Iterator[tuple[Report, bool]]:
        recent: deque[Any] = deque(maxlen=STEPS_PER_REPORT)
        batches = _recording(islice(self.data, done, None), recent)
        if self.kept is not None:
            batches = self.kept.identity.noting(self.step, run, batches)
        waiting, first = None, int(run.step)
        limit = self.limit(began, asked)
        # The first step is reported alone: after it, Ctrl-C returns something.
        room = lambda at: 1 if at == first - began else limit(at)
        found = reports(self.step, run, batches, STEPS_PER_REPORT, room, first - began)
        try:
            for report in self.profiler.around(self.costs.around(found, lambda: recent[-1]), first):
                if waiting is not None:
                    yield waiting, False
                if check.fails(report):
                    again = ((batch, None) for batch in list(recent)[-report.steps :])
                    raise find_non_finite(self.objective, self.step, run, again)
                run, waiting = report.run, report
        except KeyboardInterrupt:
            if waiting is not None:
                yield waiting, False
            raise
        if waiting is None:
            raise ValueError("the data is empty: it has no batches")
        yield waiting, True

    def limit(self, began: int, asked: Callable[[], bool]) -> Callable[[int], int]:
        """Reports end with epochs, with checkpoints, with the profile, and when the process is asked to stop."""
        every = [] if self.kept is None or self.kept.checkpoints.every is None else [self.kept.checkpoints.every]
        every += [self.data.steps_per_epoch] if isinstance(self.data, Batches) else []

        def room(done: int) -> int:
            ends = [n - done % n for n in every] + self.profiler.room(began + done)
            return 1 if asked() else min(ends, default=STEPS_PER_REPORT)

        return room


class NanWarning:
    """Warns once of a metric of validation that is NaN: nothing else would say so."""

    def __init__(self) -> None:
        self._is_given = False

    def look(self, measured: Mapping[str, Any], epoch: int, data: Any) -> None:
        names = [name for name, value in measured.items() if np.ndim(value) == 0 and np.isnan(value)]
        if not names or self._is_given:
            return
        self._is_given = True
        named = jax.tree.leaves_with_path(data) if is_arrays(data) else []
        spoiled = [
            f"validation{jax.tree_util.keystr(path)}"
            for path, leaf in named
            if jnp.issubdtype(leaf.dtype, jnp.floating) and bool(jnp.isnan(leaf).any())
        ]
        cause = f"{', '.join(spoiled)} holds NaN" if spoiled else "the network gives NaN, or no row counts"
        warnings.warn(
            f"{', '.join(f'validation/{name}' for name in names)} of epoch {epoch} is NaN: {cause}. Early stopping and "
            "the best checkpoint count it as no improvement.",
            UserWarning,
            stacklevel=2,
        )


class Check:
    """Whether a report is one to go on from; counts steps that were skipped one after another."""

    def __init__(self) -> None:
        self.skipped = 0

    def fails(self, report: Report) -> bool:
        if "skipped" not in report.metrics:
            return not (np.isfinite(report.metrics["loss"]).all() and bool(all_finite(report.run.params)))
        for skipped in report.metrics["skipped"]:
            self.skipped = self.skipped + 1 if skipped else 0
            if self.skipped == ATTEMPTS:
                return True
        return False


def _recording(data: Iterator[Any], recent: deque[Any]) -> Iterator[Any]:
    for batch in data:
        recent.append(as_arrays(batch, "batch"))
        yield recent[-1]


def _means(seen: Sequence[Metrics]) -> dict[str, Any]:
    """The means over an epoch's steps, the loss first."""
    found = means(join(seen))
    return {name: found[name].tolist() for name in sorted(found, key=lambda name: name != "loss")}


def _monitored(rule: EarlyStopping, row: dict[str, Any]) -> float:
    if rule.monitor not in row:
        raise ValueError(f"early stopping monitors {rule.monitor!r}, which is not measured; there is {', '.join(row)}")
    return float(row[rule.monitor])
