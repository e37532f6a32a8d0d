"""What a person sees of a study: remarks, a bar on a terminal, and a few rows elsewhere."""

import sys
import time
from collections.abc import Callable, Container, Iterable

import numpy as np
from tqdm import tqdm

from fnn.studies.result import many
from fnn.studies.runs import OVER, Run, RunId
from fnn.studies.scores import ranked, scores_of
from fnn.training.progress import is_live

ROWS = 10  # where there is no terminal


class StudyProgress:
    """A live bar on a terminal, plain rows elsewhere, nothing when not shown.

    Attributes:
        remarks: What was said, shown or not.
    """

    def __init__(self, value: Callable[[Run], float], monitor: str, maximize: bool, *, shown: bool):
        self.remarks: list[str] = []
        self._value, self._monitor, self._maximize = value, monitor, maximize
        self._shown, self._began, self._next, self._said = shown, time.perf_counter(), 1, ""
        self._bar = tqdm(
            total=1,
            unit=" steps",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            smoothing=0,
            disable=not (shown and is_live()),
            bar_format="{desc}|{bar:20}| {percentage:3.0f}%, {rate_noinv_fmt}, {remaining} left{postfix}",
        )

    def say(self, remark: str) -> None:
        """Keep a remark, and print it without breaking the bar."""
        self.remarks.append(remark)
        if self._shown:
            tqdm.write(remark, file=sys.stdout)
            sys.stdout.flush()

    def update(self, runs: Iterable[Run], trials: int, parked: Container[RunId], left: int) -> None:
        """Show the runs as they are now.

        Args:
            runs: All of them.
            trials: How many trials they are of.
            parked: Those that wait for another rung.
            left: Steps that are still to be done, without those that were left out by runs that ended early.
        """
        if not self._shown:
            return
        runs = list(runs)
        over = [run for run in runs if run.status in OVER and run.id not in parked]
        done = sum(run.step for run in runs)
        count, best = f"{len(over)} of {many(len(runs), 'run')}", ""
        scores = scores_of(runs, trials, self._value)
        if np.isfinite(scores).any():
            first = ranked(runs, scores, self._maximize)[0]
            best = f"best {self._monitor} {scores[first]:.4f} (trial {first})"
        text = ", ".join(filter(None, [count, best]))
        if not self._bar.disable:
            self._bar.set_description_str(f"{count} ", refresh=False)
            self._bar.set_postfix_str(best, refresh=False)  # last: a narrow terminal cuts the end
            self._bar.n, self._bar.total = done, max(done + left, 1)
            self._bar.refresh()
        elif text != self._said and (done * ROWS >= self._next * (done + left) or len(over) == len(runs)):
            self._next, self._said = done * ROWS // max(done + left, 1) + 1, text
            seconds = time.perf_counter() - self._began
            tqdm.write(f"{text}, {seconds:.0f} s", file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
