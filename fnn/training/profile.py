"""A trace of some steps, as JAX's profiler writes it."""

from collections.abc import Iterator
from pathlib import Path

import jax

from fnn.training.loop import Report

Window = tuple[int, int] | tuple[int, int, str | Path]


class Profiler:
    """Starts the trace before the first step of a window, and writes it after the last.

    Args:
        window: First step, the step after the last, and the folder; None: there is no window.
        home: Where the folder ``"profile"`` is made, when none is given.

    Raises:
        TypeError: when the window is no pair or triple.
        ValueError: when it has no steps.
    """

    def __init__(self, window: Window | None, home: Path):
        if window is not None and not (isinstance(window, tuple | list) and len(window) in (2, 3)):
            raise TypeError(f"profile must be (start, stop) or (start, stop, folder), got {window!r}")
        self.begin, self.end = (0, 0) if window is None else window[:2]
        self.folder = Path(window[2]) if window is not None and len(window) == 3 else home / "profile"
        self._runs, self._done = False, window is None
        if window is not None and not 0 <= self.begin < self.end:
            raise ValueError(f"profile must be (start, stop) with 0 <= start < stop, got {(self.begin, self.end)}")

    def fits(self, stop: int) -> None:
        """Raise where the run ends before the window begins."""
        if not self._done and self.begin >= stop:
            raise ValueError(f"profile begins at step {self.begin}, and the run ends after step {stop - 1}")

    def room(self, step: int) -> list[int]:
        """How many more steps a report may cover that ends where the window begins or ends."""
        return [] if self._done else [edge - step for edge in (self.begin, self.end) if edge > step]

    def around(self, reports: Iterator[Report], step: int) -> Iterator[Report]:
        """The same reports, the first of which begins at ``step``."""
        while True:
            if not self._done and not self._runs and self.begin <= step < self.end:
                jax.profiler.start_trace(self.folder)
                self._runs = True
            with jax.profiler.StepTraceAnnotation("steps", step_num=step):
                report = next(reports, None)
            if report is None:
                return
            step += report.steps
            if step >= self.end:
                self.close()
            yield report

    def close(self) -> None:
        """Write the trace, if it runs."""
        if self._runs:
            jax.profiler.stop_trace()
            self._runs, self._done = False, True
