"""What a study found."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.combinators import parallel
from fnn.core.layer import Layer
from fnn.data import rows
from fnn.studies.configurations import Configuration, Space
from fnn.studies.runs import Run, RunId
from fnn.studies.scores import ranked, scores_of, value_at, value_of
from fnn.studies.space import show
from fnn.studies.statistics import Comparison, Interval, compare, importance, interval
from fnn.studies.suggestions import Suggestions
from fnn.studies.trial import Table

ROWS = 10  # of the table that is printed


class Network(NamedTuple):
    """A trained network, ready to apply.

    Attributes:
        net: The layer.
        params: Its parameters.
        state: Its state.
    """

    net: Layer
    params: Any
    state: Any


class Best(NamedTuple):
    """One configuration of a study.

    Attributes:
        trial: Its number.
        configuration: Its hyperparameters by name.
        score: Mean of its runs' values.
        step: Median over its runs of the step that their value is of: the steps to train it again for.
    """

    trial: int
    configuration: Configuration
    score: float
    step: int


@dataclass(frozen=True)
class StudyResult:
    """What a study found; made by `fnn.study`.

    A trial is a configuration, a run is one training of it: a trial with a seed and a fold.

    Attributes:
        space: Where the configurations come from.
        configurations: One for each trial.
        runs: One for each training, by trial, seed and fold: its status, steps and measurements.
        monitor: Name of the measurement that is compared.
        maximize: Whether larger is better.
        at: Whether a run's value is its ``"best"`` measurement or its ``"last"``.
        networks: Builds the network of a configuration.
        kept: Parameters and state of the runs that were kept.
        predictions: ``(trials, seeds, rows, ...)``: for each row of the data the output of the network that did not
            see it, NaN where there is none; None where they were not wanted.
        remarks: What was chosen and noticed on the way, as it was printed.
    """

    space: Space | Suggestions
    configurations: list[Configuration]
    runs: list[Run]
    monitor: str
    maximize: bool
    at: str
    networks: Callable[[Configuration], Layer] = field(repr=False)
    kept: dict[tuple[int, int, int], Any] = field(repr=False)
    predictions: Any = field(repr=False)
    remarks: list[str] = field(repr=False)

    def values(self) -> np.ndarray:
        """The value of each run, ``(runs,)``; NaN for one that has none or diverged."""
        return np.array([self._value(run) for run in self.runs])

    def scores(self) -> np.ndarray:
        """The mean of each trial's values over its seeds and folds, ``(trials,)``; NaN where one is.

        One that halving evicted has the value of the steps that it did, which are fewer than those of the others.
        """
        return scores_of(self.runs, len(self.configurations), self._value)

    def evicted(self) -> np.ndarray:
        """Whether halving ended each trial before the others, ``(trials,)``."""
        trials = {run.id.trial for run in self.runs if run.status == "evicted"}
        return np.isin(np.arange(len(self.configurations)), list(trials))

    def order(self) -> list[int]:
        """Numbers of the trials, the best first; those without a score come last."""
        return ranked(self.runs, self.scores(), self.maximize)

    def best(self) -> Best:
        """The trial with the best score.

        Raises:
            ValueError: when no trial has one: all diverged, or the study was interrupted.
        """
        return self.top(1)[0]

    def top(self, count: int) -> list[Best]:
        """The trials with the best scores, the best first; fewer, where fewer have one.

        Raises:
            ValueError: when none has.
        """
        scores = self.scores()
        order = [trial for trial in self.order() if np.isfinite(scores[trial])]
        if not order or count < 1:
            raise ValueError(f"top({count}) of {len(order)} trials with a score; {self.counted()}")
        return [
            Best(trial, self.configurations[trial], float(scores[trial]), self._step(trial)) for trial in order[:count]
        ]

    def _step(self, trial: int) -> int:
        steps = [run.best_step if self.at == "best" else run.step for run in self._runs([trial])]
        return round(np.median(steps))

    def curves(self, name: str) -> np.ndarray:
        """A measurement over time, ``(runs, measurements)``, NaN after a run's end."""
        names = list(dict.fromkeys(name for run in self.runs for name in run.measured))
        if name not in names:
            raise ValueError(f"{name!r} was not measured; there is {', '.join(names) or 'nothing'}")
        return _ragged([run.measured.get(name, []) for run in self.runs])

    def steps(self) -> np.ndarray:
        """The step of each measurement, ``(runs, measurements)``, NaN after a run's end."""
        return _ragged([run.steps for run in self.runs])

    def network(self, trial: int | None = None, seed: int = 0, fold: int = 0) -> Network:
        """A trained network.

        Args:
            trial: Number of the trial. None: the best.
            seed: Number of its seed.
            fold: Number of its fold.

        Raises:
            ValueError: when there is no such run, or its parameters were not kept.
        """
        chosen = RunId(self.best().trial if trial is None else trial, seed, fold)
        named = f"trial {chosen.trial}, seed {chosen.seed}, fold {chosen.fold}"
        if chosen not in {run.id for run in self.runs}:
            trials, seeds, folds = (max(numbers) for numbers in zip(*(run.id for run in self.runs)))
            raise ValueError(
                f"the study has no {named}; it has trials 0 to {trials}, seeds 0 to {seeds} and folds 0 to {folds}"
            )
        if chosen not in self.kept:
            trials = sorted({kept[0] for kept in self.kept})
            raise ValueError(
                f"the parameters of {named} were not kept; those of trials {trials} were: "
                "give keep='all', or keep=k for the k best, to fnn.study"
            )
        params, state = self.kept[chosen]
        return Network(self.networks(self.configurations[chosen.trial]), params, state)

    def ensemble(self, count: int = 1, *, join: Callable[..., Any] | None = None) -> Network:
        """The networks of the best trials, of all their seeds and folds, as one network.

        Args:
            count: How many trials; their parameters must have been kept.
            join: ``join(y_0, y_1, ...)`` of the outputs. None: their mean. ``lambda *ys: jnp.stack(ys)`` gives all.
        """
        members = {}
        for best in self.top(count):
            for run in (run for run in self.runs if run.id.trial == best.trial):
                members[f"trial{best.trial}_seed{run.id.seed}_fold{run.id.fold}"] = self.network(*run.id)
        join = join or (lambda *ys: jnp.mean(jnp.stack(ys), axis=0))
        owned = lambda part: {name: getattr(one, part) for name, one in members.items() if getattr(one, part)}
        return Network(
            parallel(join=join, **{name: one.net for name, one in members.items()}), owned("params"), owned("state")
        )

    def interval(self, trial: int, confidence: float = 0.95) -> Interval:
        """Mean of a trial's values over seeds and folds, with its confidence interval.

        Folds share rows to train on, so that over them it is too narrow. It knows of no bounds: that of an accuracy may
        go beyond 1.
        """
        return interval(self._of([trial]), confidence)

    def compare(self, a: int, b: int, confidence: float = 0.95) -> Comparison:
        """Two trials on the same seeds and folds: the mean of their paired differences, with its interval.

        Where halving evicted one of them, they are compared after the steps that both did.
        """
        until = self._shared_steps([a, b])
        return compare(self._of([a], until), self._of([b], until), confidence)

    def importance(self) -> dict[str, float]:
        """The share of each hyperparameter in what can be said of the scores, the largest first; needs scikit-learn.

        Where halving evicted some, it is that in the scores after the steps that all trials did.
        """
        until, count = self._shared_steps(range(len(self.configurations))), len(self.configurations)
        scores = scores_of(self.runs, count, lambda run: self._value(run, until))
        return importance(self.space.dimensions, self.configurations, scores)

    def records(self) -> Iterator[dict[str, Any]]:
        """For each run its numbers, hyperparameters and measurements, for any logger."""
        for run in self.runs:
            named = {"hyperparameters": self.configurations[run.id.trial], "value": self._value(run)}
            yield {**run.record(), **named}

    def to_pandas(self) -> Any:
        """A table with one row for each run: numbers, status, value, steps, hyperparameters; needs pandas."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: python -m pip install pandas") from error
        rows = [
            {**run.id._asdict(), "status": run.status, self.monitor: self._value(run), "step": run.step}
            | {"best_step": run.best_step, **self.configurations[run.id.trial]}
            for run in self.runs
        ]
        return pandas.DataFrame(rows)

    def __str__(self) -> str:
        scores = self.scores()
        several = len(self.runs) > len(self.configurations)
        lines = [f"{self.counted()}; {'largest' if self.maximize else 'smallest'} {self.monitor} first"]
        names = list(self.space.dimensions)
        early = self.evicted().any()
        rows = [["trial", self.monitor, *(["95% interval"] if several else []), *(["steps"] if early else []), *names]]
        scored = [trial for trial in self.order() if np.isfinite(scores[trial])]
        for trial in scored[:ROWS]:
            about = self.interval(trial)
            spread = [f"{about.low:.4f} to {about.high:.4f}"] if several else []
            steps = [str(max(run.step for run in self._runs([trial])))] if early else []
            values = [show(self.configurations[trial][name]) for name in names]
            rows.append([str(trial), f"{scores[trial]:.4f}", *spread, *steps, *values])
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
        lines += [f"... {len(scored) - ROWS} more"] if len(scored) > ROWS else []
        return "\n".join(lines)

    def _value(self, run: Run, until: int | None = None) -> float:
        if until is None:
            return value_of(run, self.monitor, self.at)
        return value_at(run, until, self.monitor, self.maximize, self.at)

    def _of(self, trials: Sequence[int], until: int | None = None) -> list[float]:
        return [self._value(run, until) for run in self._runs(trials)]

    def _runs(self, trials: Sequence[int]) -> list[Run]:
        for trial in trials:
            if not 0 <= trial < len(self.configurations):
                raise ValueError(f"the study has no trial {trial}; it has 0 to {len(self.configurations) - 1}")
        wanted = set(trials)
        return [run for run in self.runs if run.id.trial in wanted]

    def _shared_steps(self, trials: Sequence[int]) -> int | None:
        """The steps that all of some trials did; None where none was evicted, and each went as far as it should."""
        return min((run.step for run in self._runs(trials) if run.status == "evicted"), default=None)

    def counted(self) -> str:
        """How many trials and runs there are, and how these ended."""
        counts = Counter(run.status for run in self.runs)
        listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        return f"{many(len(self.configurations), 'trial')}, {many(len(self.runs), 'run')}: {listed}"


def many(count: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def in_order(found: dict[RunId, Any], table: Table, trials: int, seeds: int) -> Any:
    """Outputs for held-out rows in the order of the data; where a row was held out several times, the mean."""
    if not found:
        return None
    assert table.held_out is not None
    assert table.held_out_sizes is not None
    held_out, sizes = np.asarray(table.held_out), np.asarray(table.held_out_sizes)
    offset = held_out.min() if held_out.max() >= table.train.shape[1] and len(held_out) == 1 else 0
    size = rows(table.data) - offset

    def gather(*leaves: Any) -> np.ndarray:
        shape = leaves[0].shape[1:]
        totals = np.zeros((trials, seeds, size, *shape))
        counts = np.zeros(totals.shape[:3])
        for run_id, leaf in zip(found, leaves):
            places = held_out[run_id.fold, : sizes[run_id.fold]] - offset
            totals[run_id.trial, run_id.seed, places] += leaf[: len(places)]
            counts[run_id.trial, run_id.seed, places] += 1
        counts = counts.reshape(*counts.shape, *(1 for _ in shape))
        return np.where(counts, totals / np.maximum(counts, 1), np.nan)

    return jax.tree.map(gather, *found.values())


def _ragged(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    width = max(map(len, rows), default=0)
    shape = next((np.shape(row[0]) for row in rows if len(row)), ())
    full = np.full((len(rows), width, *shape), np.nan)
    for target, row in zip(full, rows):
        if len(row):
            target[: len(row)] = row
    return full
