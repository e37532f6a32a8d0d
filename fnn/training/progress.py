"""What a person sees of a training run: a bar while it computes, and a table with a row for each epoch."""

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from fnn.data import Batches

ROWS = 20  # about as many rows as stay readable
COLUMNS = 100  # where the width is unknown: in a notebook, a file or a pipe
QUIET_SECONDS = 60.0  # without a bar: how long nothing is printed
NARROW = 70  # columns; with fewer the numbers need the place of the bar
BAR = "{desc} |{bar:15}| {percentage:3.0f}%, {rate_noinv_fmt}, {remaining} left{postfix}"
PERCENT = "{desc}: {percentage:.0f}%, {rate_noinv_fmt}, {remaining} left{postfix}"
COUNTER = "{desc}: {n_fmt} steps, {rate_noinv_fmt}{postfix}"  # while nobody knows how many steps there will be


def is_live() -> bool:
    """Whether a line can be overwritten: on a terminal and in a notebook."""
    shell = sys.modules.get("IPython")
    is_notebook = shell is not None and "IPKernelApp" in getattr(shell.get_ipython(), "config", ())
    return is_notebook or sys.stderr.isatty()


def steps_per_epoch(data: Any) -> int | None:
    """The number of batches in one pass over ``data``, or None where only the pass will tell."""
    if isinstance(data, Batches):
        return data.steps_per_epoch
    try:
        return len(data) or None
    except TypeError:
        return None


class Progress:
    """A bar on a terminal and in a notebook, a line now and then elsewhere, and rows; nothing when not shown."""

    def __init__(self, epochs: int, steps: int | None, *, shown: bool, done: int = 0):
        self._epochs, self._steps, self._shown = epochs, steps, shown
        self._every = max(1, math.ceil(epochs / ROWS))
        self._epoch, self._first, self._done = done, done, 0
        self._table: Table | None = None
        self._waiting: dict[str, str] | None = None
        self._began = self._started = self._spoke = time.perf_counter()
        self._bar = tqdm(
            total=steps and steps * epochs,
            initial=(steps or 0) * done,
            desc=f"epoch {done + 1}/{epochs}, compiling",
            unit=" steps",
            leave=False,
            dynamic_ncols=True,
            smoothing=0,
            disable=not (shown and is_live()),
            bar_format="{desc}",
        )
        self._compiling = True

    def update(self, steps: int, metrics: Mapping[str, Any]) -> None:
        """Show that some steps were done."""
        self._done += steps
        if self._bar.disable:
            self._speak(metrics)
            return
        name, width = f"epoch {self._epoch + 1}/{self._epochs}", _columns()
        self._bar.bar_format = (PERCENT if width < NARROW else BAR) if self._bar.total else COUNTER
        self._bar.set_description_str(name, refresh=False)
        self._bar.set_postfix_str(_listed(metrics, width - len(name) - (40 if width < NARROW else 57)), refresh=False)
        if self._compiling:  # the rate, and so the estimate, starts after the first call, which compiles
            self._compiling = False
            self._bar.n = self._bar.initial = self._bar.initial + steps
            self._bar.start_t = time.time()
        else:
            self._bar.update(steps)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show that an epoch was done."""
        self._epoch += 1
        seconds, self._began = time.perf_counter() - self._began, time.perf_counter()
        if self._steps is None and self._epoch < self._epochs:  # one pass tells how long the others will take
            self._bar.total = self._bar.n + self._done * (self._epochs - self._epoch) // (self._epoch - self._first)
        if not self._shown:
            return
        cells = {name: _number(value) for name, value in row.items() if np.ndim(value) == 0}
        self._waiting = {"epoch": str(self._epoch), **cells, "seconds": f"{seconds:.1f}"}
        if self._table is None or self._epoch in (1, self._epochs) or self._epoch % self._every == 0:
            self._show_row()

    def say(self, line: str) -> None:
        """Print a remark without breaking the bar."""
        self._show_row()
        if self._shown:
            self._print(line)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _speak(self, metrics: Mapping[str, Any]) -> None:
        """Without a bar: print a line after a minute without one, later at longer intervals."""
        now = time.perf_counter()
        if not self._shown or now - self._spoke < max(QUIET_SECONDS, (now - self._started) / ROWS):
            return
        self._spoke = now
        whole = self._steps and self._steps * (self._epochs - self._first)
        steps = f"step {self._done}" if whole is None else f"step {self._done} of {whole}"
        passed = tqdm.format_interval(now - self._started)
        self._print(", ".join([f"epoch {self._epoch + 1}/{self._epochs}", steps, passed, _listed(metrics)]))

    def _show_row(self) -> None:
        if self._waiting is None:
            return
        if self._table is None:
            self._table = Table(list(self._waiting), _columns())
            if self._every > 1:
                self._print(f"one epoch in {self._every} is shown")
            self._print(self._table.head)
        self._print(self._table.row(self._waiting))
        self._waiting, self._spoke = None, time.perf_counter()

    def _print(self, text: str) -> None:
        if text:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()


class Table:
    """Rows of named cells that fit a width: each in one line, or in two, or as a list that is wrapped.

    Attributes:
        head: The text above the rows, at times empty.
    """

    def __init__(self, names: list[str], width: int):
        self._width = width
        bases = dict.fromkeys(name.removeprefix("validation/") for name in names if name not in ("epoch", "seconds"))
        short = {name: name.replace("validation/", "val/") for name in names}
        kinds = {"epoch": "epoch", "": "", **{base: base for base in bases}, "seconds": "seconds"}
        has_validation = len(bases) + 2 < len(names)
        self._titles: dict[str, str] = {}
        for titles in ({name: name for name in names}, short, *([kinds] if has_validation else [])):
            widths = [_width_of(title) for title in titles.values()]
            if sum(widths) + 2 * (len(widths) - 1) <= width:
                self._titles = titles
                break
        self._in_two = self._titles is kinds
        self.head = self._line(self._titles)

    def row(self, cells: Mapping[str, str]) -> str:
        """The text of one row."""
        if not self._titles:
            items = [f"{name.replace('validation/', 'val/')} {text}" for name, text in cells.items()]
            whole = ", ".join(item.replace(" ", "\N{NO-BREAK SPACE}") for item in items)  # a name stays with its number
            lines = textwrap.wrap(whole, self._width, subsequent_indent="  ", break_long_words=False)
            return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")
        if not self._in_two:
            return self._line(cells)
        upper = {name: text for name, text in cells.items() if not name.startswith("validation/")} | {"": "train"}
        lower = {name.removeprefix("validation/"): cells[name] for name in cells if name.startswith("validation/")}
        return f"{self._line(upper)}\n{self._line(lower | {'': 'val'})}"

    def _line(self, cells: Mapping[str, str]) -> str:
        texts = (cells.get(name, "").rjust(_width_of(title)) for name, title in self._titles.items())
        return "  ".join(texts).rstrip()


def _width_of(title: str) -> int:
    return len(title) if title == "epoch" else max(len(title), 8 if title else 5)


def _columns() -> int:
    return shutil.get_terminal_size((COLUMNS, 0)).columns


def _listed(metrics: Mapping[str, Any], width: int | None = None) -> str:
    """Means of the metrics, the loss first, as many as fit the width."""
    names = sorted(metrics, key=lambda name: name != "loss")
    texts = [f"{name} {_number(np.mean(metrics[name]))}" for name in names]
    while width is not None and len(", ".join(texts)) > width and texts:
        texts.pop()
    return ", ".join(texts)


def _number(value: Any) -> str:
    value = float(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"
