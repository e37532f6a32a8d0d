"""How a benchmark ends early without losing what it has measured."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import machine

STOPPED = 130  # the exit status after Ctrl-C


class Stopper:
    """Within its ``with``, Ctrl-C and SIGTERM end the running child, and the benchmark at the next safe place."""

    def __init__(self) -> None:
        self.stopped = False
        self._child: subprocess.Popen[str] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopper":
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run Python in a process of its own: its exit status, output and errors.

        Raises:
            KeyboardInterrupt: when a signal came, before or while it ran.
        """
        self._child = subprocess.Popen(
            [sys.executable, *arguments], cwd=machine.ROOT, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if self.stopped:
            self._child.kill()
        out, errors = self._child.communicate()
        if self.stopped:
            raise KeyboardInterrupt
        return self._child.returncode, out, errors

    def _stop(self, *signal_and_frame: object) -> None:
        self.stopped = True
        if self._child:
            self._child.kill()
