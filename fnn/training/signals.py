"""Signals that ask a long call to end: SIGTERM ends the process, Ctrl-C ends the call."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TERMINATED = 143  # the exit status of a process that SIGTERM ended, as schedulers know it


@contextmanager
def termination(*, saves: bool) -> Iterator[Callable[[], bool]]:
    """End the process with status 143 on SIGTERM, while the block runs.

    Args:
        saves: Whether the caller saves first: the signal is then only noted, and the caller raises
            ``SystemExit(TERMINATED)`` when all is saved. Otherwise the signal raises it at once, unless the program has
            a handler of its own, which stays in place.

    Yields:
        A function that tells whether SIGTERM came.
    """
    came = threading.Event()

    def note(*_: Any) -> None:
        came.set()
        if not saves:
            raise SystemExit(TERMINATED)

    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with _handled(signal.SIGTERM, note if saves or is_default else None):
        yield came.is_set


@contextmanager
def interruption(has_results: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C while the block runs; a second one raises KeyboardInterrupt at once.

    Args:
        has_results: Whether the caller has something to return: otherwise the first one raises too.

    Yields:
        A function that tells whether Ctrl-C came.
    """
    came = threading.Event()

    def note(*_: Any) -> None:
        if came.is_set() or not has_results():
            raise KeyboardInterrupt
        came.set()

    with _handled(signal.SIGINT, note):
        yield came.is_set


@contextmanager
def _handled(number: int, handler: Callable[..., None] | None) -> Iterator[None]:
    """Handle a signal; only the main thread can."""
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)
