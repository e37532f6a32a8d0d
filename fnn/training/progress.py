"""What a person sees of a training run: a bar on a terminal, and a table with a row for each epoch."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

ROWS = 20  # about as many rows as stay readable


class Progress:
    """A live bar on a terminal, plain rows elsewhere, nothing when not shown."""

    def __init__(self, epochs: int, steps_per_epoch: int | None, *, shown: bool, done: int = 0):
        self._epochs, self._shown = epochs, shown
        self._every = max(1, math.ceil(epochs / ROWS))
        self._epoch, self._widths = done, {}
        self._began = time.perf_counter()
        self._bar = tqdm(
            total=steps_per_epoch and steps_per_epoch * epochs,
            initial=(steps_per_epoch or 0) * done,
            desc=f"epoch {done + 1}/{epochs}, compiling",
            unit=" steps",
            leave=False,
            dynamic_ncols=True,
            smoothing=0,
            disable=not (shown and sys.stderr.isatty()),
            bar_format="{desc} |{bar:20}| {percentage:3.0f}%, {rate_noinv_fmt}, {remaining} left{postfix}",
        )
        self._compiling = True

    def update(self, steps: int, metrics: Mapping[str, Any]) -> None:
        """Tell of some steps that were done."""
        if self._bar.disable:
            return
        self._bar.set_description_str(f"epoch {self._epoch + 1}/{self._epochs}", refresh=False)
        names = sorted(metrics, key=lambda name: name != "loss")
        self._bar.set_postfix_str(
            ", ".join(f"{name} {_number(np.mean(metrics[name]))}" for name in names), refresh=False
        )
        if self._compiling:  # the rate, and so the estimate, starts after the first call, which compiles
            self._compiling = False
            self._bar.n = self._bar.initial = self._bar.initial + steps
            self._bar.start_t = time.time()
        else:
            self._bar.update(steps)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Tell of an epoch that was done."""
        self._epoch += 1
        seconds, self._began = time.perf_counter() - self._began, time.perf_counter()
        if not self._shown or not (
            self._epoch in (1, self._epochs) or not self._widths or self._epoch % self._every == 0
        ):
            return
        cells = {name: _number(value) for name, value in row.items() if np.ndim(value) == 0}
        cells = {"epoch": str(self._epoch), **cells, "seconds": f"{seconds:.1f}"}
        if not self._widths:
            self._widths = {name: max(len(name), 8 if name != "epoch" else 0) for name in cells}
            self._say("  ".join(name.rjust(width) for name, width in self._widths.items()))
        self._say("  ".join(cells.get(name, "").rjust(width) for name, width in self._widths.items()))

    def say(self, line: str) -> None:
        """Print a remark without breaking the bar."""
        if self._shown:
            self._say(line)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def _number(value: Any) -> str:
    value = float(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"
