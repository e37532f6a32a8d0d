"""A study from its first run to its last: groups of one static choice, rungs, the folder, progress."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fnn.studies.choose import choose
from fnn.studies.compiled import Traced
from fnn.studies.configurations import Configuration
from fnn.studies.engine import Engine
from fnn.studies.folder import StudyFolder
from fnn.studies.identity import program_identity, traced_for
from fnn.studies.progress import StudyProgress
from fnn.studies.runs import OVER, Run, RunId
from fnn.studies.schedule import Schedule, Store, places_of
from fnn.studies.scores import ranked, scores_of, value_at, value_of
from fnn.studies.settings import Settings
from fnn.studies.space import show
from fnn.studies.trial import Place

SNAPSHOT = 30.0  # seconds between two writings of what is in the middle


@dataclass
class Study:
    """What grows while a study runs."""

    settings: Settings
    progress: StudyProgress
    folder: StudyFolder | None
    configurations: list[Configuration] = field(default_factory=list)
    runs: dict[RunId, Run] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    engines: dict[str, Engine] = field(default_factory=dict)
    traces: dict[str, dict[str, Traced]] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    budgets: dict[int, int] = field(default_factory=dict)  # steps of each trial in the present rung
    ahead: int = 0  # steps of later rungs
    unasked: int = 0  # trials that are still to be suggested
    asked: Callable[[], bool] = lambda: False  # whether a signal asks to stop
    _written: float = field(default_factory=time.monotonic)

    def has_results(self) -> bool:
        """Whether anything is measured."""
        return any(run.steps for run in list(self.runs.values()))

    def label(self, trial: int) -> str:
        """The static choices of a trial, as a name."""
        static = self.settings.static(self.configurations[trial])
        return ", ".join(f"{name}={show(value)}" for name, value in static.items())

    def identity(self, trial: int) -> dict[str, str]:
        """What the static choices of a trial compute."""
        return program_identity(self.settings, self.configurations[trial], self.trace(trial))

    def trace(self, trial: int) -> dict[str, Traced]:
        """The programs of one network, for the static choices of a trial."""
        traces = self.traces.setdefault(self.label(trial), {})
        return traced_for(self.settings, self.configurations[trial], traces)

    def ids(self, trials: Sequence[int]) -> list[RunId]:
        """The runs of some trials."""
        seeds, folds = range(self.settings.seeds), range(self.settings.folds)
        return [RunId(trial, seed, fold) for trial in trials for seed in seeds for fold in folds]

    def is_over(self, run_id: RunId) -> bool:
        """Whether a run has ended, and waits for no other rung."""
        run = self.runs.get(run_id)
        return run is not None and run.status in OVER and run_id not in self.store.parked

    def conduct(self, trials: Sequence[int]) -> bool:
        """Train these trials to their ends; False where a signal asked to stop before."""
        settings = self.settings
        for run_id in self.ids(trials):
            self.runs.setdefault(run_id, Run(run_id))
        ends = {trial: settings.steps(self.configurations[trial]) for trial in trials}
        rungs = [max(ends.values())]
        if settings.halving is not None:
            rungs = settings.halving.rungs(rungs[0], settings.every)
        left = list(trials)
        for number, rung in enumerate(rungs):
            is_last = number == len(rungs) - 1
            budgets = {trial: min(rung, ends[trial]) for trial in left}
            self._plan(budgets, rungs[number:])
            if not self._train(left, budgets, stays=not is_last):
                return False
            if not is_last:
                left = self._halve(left, rung)
        self._write({})
        return True

    def _plan(self, budgets: dict[int, int], rungs: Sequence[int]) -> None:
        """Know which steps are ahead: those of the present rung, and as many of the later ones as survivors will do."""
        self.budgets, self.ahead, count = budgets, 0, len(budgets)
        for before, rung in itertools.pairwise(rungs):
            assert self.settings.halving is not None
            count = self.settings.halving.survivors(count)
            self.ahead += count * (rung - before) * self.settings.seeds * self.settings.folds

    def steps_left(self) -> int:
        """How many steps are still to be done, where no other run ends early."""
        here = [run for run in self.runs.values() if run.id.trial in self.budgets and not self.is_over(run.id)]
        unasked = self.unasked * max(self.budgets.values()) * self.settings.seeds * self.settings.folds
        return unasked + self.ahead + sum(max(0, self.budgets[run.id.trial] - run.step) for run in here)

    def _train(self, trials: Sequence[int], budgets: dict[int, int], stays: bool) -> bool:
        """Train the runs of trials to their budgets, a group after another."""
        groups: dict[str, list[int]] = {}
        for trial in trials:
            groups.setdefault(self.label(trial), []).append(trial)
        for label, members in groups.items():
            runs = [run for run in self._of(members) if self._goes_on(run, budgets)]
            if not runs:
                continue
            engine = self._engine(label, runs)
            if self.asked():  # while it was compiled
                self._write({})
                return False
            schedule = Schedule(
                engine,
                lambda trial: self.settings.traced(self.configurations[trial]),
                self.settings.every,
                self.settings.rule,
                self.settings.keep == "all" or self.settings.keep > 0,
                self.settings.predictions,
                self.store,
            )
            for ended in schedule.train(runs, lambda run: budgets[run.id.trial], stays):
                if ended:
                    self._prune()
                self.progress.update(self.runs.values(), len(self.configurations), self.store.parked, self.steps_left())
                if self.asked():
                    self._write(schedule.running())
                    return False
                if self.folder is not None and time.monotonic() - self._written > SNAPSHOT:
                    self._write(schedule.running())
        return True

    def _goes_on(self, run: Run, budgets: dict[int, int]) -> bool:
        """Whether a run has steps to do; one whose state is lost begins anew."""
        if run.status in ("stopped", "evicted", "diverged") or run.step >= budgets[run.id.trial]:
            return False
        if run.step and run.id not in self.store.parked:
            self.runs[run.id] = run = Run(run.id)
        run.status = "waiting"
        return True

    def _of(self, trials: Sequence[int]) -> list[Run]:
        wanted = set(trials)
        return [run for run in self.runs.values() if run.id.trial in wanted]

    def _halve(self, trials: list[int], rung: int) -> list[int]:
        """The trials that continue after a rung."""
        assert self.settings.halving is not None
        runs = self._of(trials)
        monitor, maximize, at = self.settings.monitor, self.settings.maximize, self.settings.at
        scores = scores_of(runs, len(self.configurations), lambda run: value_at(run, rung, monitor, maximize, at))
        ranking = [trial for trial in ranked([], scores, maximize) if trial in set(trials)]
        staying = set(ranking[: self.settings.halving.survivors(len(trials))])
        for run in runs:
            if run.id.trial not in staying:
                self.store.parked.pop(run.id, None)
                if run.status == "finished" and run.step <= rung:
                    run.status = "evicted"
        remark = f"after {rung} steps {len(staying)} of {len(trials)} trials continue"
        self.progress.say(remark)
        return sorted(staying)

    def _engine(self, label: str, runs: Sequence[Run]) -> Engine:
        if label in self.engines:
            return self.engines[label]
        settings, decided = self.settings, self.chosen.get(label)

        def examples(width: int) -> Place:
            some = [runs[number % len(runs)] for number in range(width)]
            return places_of(some, lambda trial: settings.traced(self.configurations[trial]), [2**30] * width)

        configuration = self.configurations[runs[0].id.trial]
        mode, width = (decided["mode"], decided["width"]) if decided else (settings.mode, settings.width)
        steps = sum(settings.steps(self.configurations[run.id.trial]) for run in runs)
        engine, why = choose(
            settings.program(configuration),
            settings.table,
            settings.key,
            examples,
            len(runs),
            steps,
            settings.every,
            mode,
            width,
            settings.mesh,
            self.traces.setdefault(label, {}),
        )
        self.engines[label] = engine
        self.progress.say(f"{label}: {why}" if label else why)
        if self.folder is not None:
            self.folder.decide(label, engine.mode, engine.width, self.identity(runs[0].id.trial))
        return engine

    def _prune(self) -> None:
        """Drop the parameters of trials that can no longer be among the best."""
        keep = self.settings.keep
        if keep == "all" or not keep:
            return
        waiting = {run.id.trial for run in self.runs.values() if run.status not in OVER}
        value = lambda run: value_of(run, self.settings.monitor, self.settings.at)
        scores = scores_of(list(self.runs.values()), len(self.configurations), value)
        ranking = ranked(self.runs.values(), scores, self.settings.maximize)
        over = [n for n in ranking if n not in waiting and np.isfinite(scores[n])]
        wanted = waiting | set(over[:keep])
        self.store.kept = {run_id: tree for run_id, tree in self.store.kept.items() if run_id.trial in wanted}

    def _write(self, running: dict[RunId, Any]) -> None:
        if self.folder is not None:
            states = {**self.store.parked, **running}
            self.folder.write(list(self.runs.values()), states, self.store.kept, self.store.predictions)
            self._written = time.monotonic()
